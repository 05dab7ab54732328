package fallback

import "time"

// PeerAnswers is how long all that a plan asks of a peer's database may take: where nothing answers any more the peer counts as unread.
const PeerAnswers = 30 * time.Second

// Region is what every plan has to know of the local database.
type Region struct {
	Name                    string
	Ready                   bool // setup was run
	Mode                    *Row
	ModeTable, ModeReadable bool   // pgwaltz.mode is there; and Runtime may read it
	Role, Runtime           string // who runs the statements; and who runs the sidecar
	By                      string // the region whose process switches by itself; "" for a person
}

// Table makes pgwaltz.mode.
func (p *Plan) Table(r Region) {
	if !r.Ready {
		p.Refuse("no_schema", "pgwaltz setup --config FILE", "this database is not set up")
	}
	p.Add(r.ModeTable, "which mode is in effect", Schema)
	if r.Runtime != r.Role {
		p.Add(r.ModeReadable, "run reads it", GrantSQL(r.Runtime))
	}
}

// Begin notes the switch. What must be found undone on the way is added behind it, and Settle is the end.
func (p *Plan) Begin(r Region) {
	p.Table(r)
	p.By = r.By
	p.began = len(p.Statements)
	noted := r.Mode != nil && r.Mode.Mode == p.To && !r.Mode.Settled && r.Mode.By == r.By
	p.Add(noted, "until the switch is finished no sidecar works here", BeginSQL(r.Name, p.To, r.By))
}

// Settle ends the switch; where nothing was to be done, nothing is noted.
func (p *Plan) Settle(r Region) {
	p.Add(false, "the switch is finished", SettleSQL(r.Name, p.To))
	if r.Mode == nil || r.Mode.Mode != p.To || !r.Mode.Settled || r.Mode.By != r.By || p.Pending() > 2 { // the two that note it
		return
	}
	p.Statements[p.began].Done, p.Statements[len(p.Statements)-1].Done = true, true
}
