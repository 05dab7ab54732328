package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// Server is one end, for people and scripts.
type Server struct {
	Region  string `json:"region"`
	ID      string `json:"id"` // system identifier/database
	Version int    `json:"version"`
}

// Road is how far one direction is.
type Road struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Mode     string `json:"mode"`
	Applied  string `json:"applied"` // a position of From's WAL: what is below it is at To
	End      string `json:"end"`     // of From's WAL
	LagBytes int64  `json:"lag_bytes"`
	Broken   string `json:"broken,omitempty"`    // why nothing will come
	NotReady string `json:"not_ready,omitempty"` // why it says nothing of all tables
	Parked   int64  `json:"parked"`
}

// Progress is what one look finds. Nothing of it is kept.
type Progress struct {
	At          time.Time          `json:"at"` // of this machine's clock
	Source      Server             `json:"source"`
	Destination Server             `json:"destination"`
	State       *Step              `json:"cutover"` // nil: none is noted
	There       Road               `json:"there"`
	Back        Road               `json:"back"`
	Sequences   int                `json:"sequences"`
	Behind      []string           `json:"sequences_behind"` // and those that the destination lacks
	Sessions    []hold.Session     `json:"sessions"`         // of the application, at the source
	Hidden      int                `json:"sessions_hidden"`  // of which this role may not see what they do
	Findings    preflight.Findings `json:"findings"`
}

// Step is how far the cutover is that is noted at the source.
type Step struct {
	Paused    bool      `json:"paused"`
	Drained   bool      `json:"drained"`
	Arrived   bool      `json:"arrived"`
	Sequenced bool      `json:"sequenced"`
	Finished  bool      `json:"finished"`
	Deadline  time.Time `json:"deadline"` // means nothing where it is finished
}

// Writers are the sessions whose transaction has written, held those whose role a pause holds.
func (p *Progress) Writers() (all, held int) {
	for _, s := range p.Sessions {
		if s.Writes {
			all++
			if s.Held() {
				held++
			}
		}
	}
	return all, held
}

func (e *End) server() Server { return Server{e.Region, e.ID(), e.Sys.Version / 10000} }

// road looks how far e's direction is.
func (e *Ends) road(ctx context.Context) (Road, error) {
	r := Road{From: e.Source.Region, To: e.Destination.Region}
	p, err := e.look(ctx)
	if err != nil {
		return r, err
	}
	r.Mode, r.Applied, r.End, r.Broken, r.NotReady, r.Parked = string(p.mode), p.at.String(), p.end.String(), p.broken, p.open, p.parked
	if p.broken == "" && p.end > p.at {
		r.LagBytes = int64(p.end - p.at)
	}
	return r, nil
}

// Progress looks once, and changes nothing. A session that was lost is opened anew, and the server asked who it is.
func (e *Ends) Progress(ctx context.Context) (*Progress, error) {
	if err := errors.Join(e.Source.again(ctx), e.Destination.again(ctx)); err != nil {
		return nil, err
	}
	s, err := e.state(ctx)
	if err != nil {
		return nil, err
	}
	p := &Progress{At: time.Now(), Source: e.Source.server(), Destination: e.Destination.server(), Behind: []string{}, Findings: preflight.Findings{}}
	var except []string
	if s != nil {
		p.State = &Step{s.Paused, s.Drained, s.Arrived, s.Sequenced, s.Finished, s.Deadline}
		except = s.LeftAlone
	}
	if p.There, err = e.road(ctx); err != nil {
		return nil, err
	}
	if p.Back, err = (&Ends{Source: e.Destination, Destination: e.Source, cfg: e.cfg}).road(ctx); err != nil {
		return nil, err
	}
	list, err := e.sequences(ctx, 0)
	if err != nil {
		return nil, err
	}
	p.Sequences = len(list)
	for _, q := range list {
		if q.Missing || q.Problem != "" || q.Change() {
			p.Behind = append(p.Behind, q.Name)
		}
	}
	if p.Sessions, err = hold.Sessions(ctx, e.Source.Conn, e.Source.Ours, except); err != nil {
		return nil, err
	}
	for _, one := range p.Sessions {
		if one.State == "" {
			p.Hidden++
		}
	}
	paused := s != nil && s.Paused
	var leak *hold.LeakError
	if paused {
		if err := hold.Tight(ctx, e.Source.Conn, e.Source.Ours, s.LeftAlone); err != nil && !errors.As(err, &leak) {
			return nil, err
		}
	}
	p.judge(paused, leak)
	return p, nil
}

// judge says what is not well.
func (p *Progress) judge(paused bool, leak *hold.LeakError) {
	add := func(severity preflight.Severity, code, remedy, format string, args ...any) {
		p.Findings = append(p.Findings, preflight.Finding{Severity: severity, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	switch {
	case p.There.Broken != "":
		add(preflight.Error, "no_way", "pgwaltz status", "%s", p.There.Broken)
	case p.There.NotReady != "":
		add(preflight.Error, "not_ready", "wait until it is", "%s", p.There.NotReady)
	}
	if p.There.Parked > 0 {
		add(preflight.Error, "parked", "pgwaltz parked list", "%d changes of the source are parked at the destination", p.There.Parked)
	}
	if p.Back.Broken != "" {
		add(preflight.Warning, "no_way_back", "direction: both, before the cutover", "%s", p.Back.Broken)
	}
	if all, held := p.Writers(); paused && held > 0 {
		add(preflight.Error, "still_writes", "pgwaltz cutover pause-write again, where it was cut off", "%d sessions of roles that are held have written in transactions that are open", held)
	} else if paused && all > 0 {
		add(preflight.Warning, "left_alone", "", "%d sessions of roles that are left alone write", all)
	}
	if leak != nil {
		add(preflight.Error, "leak", leak.Hint(), "%s", leak.Error())
	}
	if p.State != nil && p.State.Sequenced && len(p.Behind) > 0 {
		add(preflight.Warning, "sequences", "pgwaltz cutover sequences, before finish", "sequences of the destination are not ahead: %s", strings.Join(p.Behind[:min(3, len(p.Behind))], ", "))
	}
	if p.Hidden > 0 {
		add(preflight.Warning, "hidden", "grant pg_read_all_stats to this role", "%d sessions may not be seen by this role: whether they write is not known", p.Hidden)
	}
}
