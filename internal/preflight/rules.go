package preflight

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// Two regions that order the writes of a table by other columns, or in another way, decide conflicts of it otherwise, and
// would differ. Each knows only its own configuration, so they tell each other.

// StampsDiffer is the code of such a table.
const StampsDiffer = "stamps_differ"

// Rules is what a region tells the others of its configuration: what decides conflicts.
type Rules struct {
	Version   string `json:"version"`
	UpdatedAt string `json:"updated_at"`
	Order     string `json:"order"`
	Tables    []Rule `json:"tables,omitempty"`
}

// Rule is one of tables.rules; nil and "" say nothing of a setting.
type Rule struct {
	Match     string  `json:"match"`
	Version   *string `json:"version,omitempty"`
	UpdatedAt *string `json:"updated_at,omitempty"`
	Order     string  `json:"order,omitempty"`
}

// RulesOf returns what cfg says.
func RulesOf(cfg *config.Config) Rules {
	r := Rules{Version: cfg.Stamps.Version, UpdatedAt: cfg.Stamps.UpdatedAt, Order: string(cfg.Stamps.Order)}
	for _, t := range cfg.Tables.Rules {
		r.Tables = append(r.Tables, Rule{Match: t.Match.String(), Version: t.Version, UpdatedAt: t.UpdatedAt, Order: string(t.Order)})
	}
	return r
}

// maxRules bounds what is read of another region, in bytes.
const maxRules = 256 << 10

// ReadRules reads what another region says (RulesOf, as JSON).
func ReadRules(data []byte) (r Rules, err error) {
	if len(data) > maxRules {
		return Rules{}, fmt.Errorf("read rules of another region: they have %d bytes, more than %d", len(data), maxRules)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return Rules{}, errors.New("read rules of another region: they are no rules")
	}
	_, err = r.config()
	return r, err
}

// config makes a configuration of which only Table is used.
func (r Rules) config() (*config.Config, error) {
	c := &config.Config{Stamps: config.Stamps{Version: r.Version, UpdatedAt: r.UpdatedAt, Order: config.Order(r.Order)}}
	for _, t := range r.Tables {
		p, err := config.ParsePattern(t.Match)
		if err != nil {
			return nil, fmt.Errorf("read rules of another region: %w", err)
		}
		c.Tables.Rules = append(c.Tables.Rules, config.Rule{Match: p, Version: t.Version, UpdatedAt: t.UpdatedAt, Order: config.Order(t.Order)})
	}
	return c, nil
}

// differing finds the selected tables whose conflicts another region decides by other columns, of those that the table has
// here, or in another order.
func differing(f *facts, region string, theirs Rules, fs *Findings) error {
	other, err := theirs.config()
	if err != nil {
		return err
	}
	for _, t := range f.sel.Tables {
		here, there := orderedBy(f.cfg, t), orderedBy(other, t)
		if here == there {
			continue
		}
		fs.addTable(t.Ref(), Error, StampsDiffer, "give the table the same version, updated_at and order in tables.rules of both regions, and restart both; its rows are copied then",
			fmt.Sprintf("region %s decides their conflicts by %s, and this one by %s", region, there, here),
			"region %s decides conflicts of %s by %s, and this one by %s: rows may differ", region, t.Ref(), there, here)
	}
	return nil
}

// orderedBy says in words what decides conflicts of a table.
func orderedBy(cfg *config.Config, t *pg.Table) string {
	s := cfg.Table(t.Schema, t.Name)
	var by []string
	for _, c := range []struct{ what, name string }{{"version", s.Version}, {"updated_at", s.UpdatedAt}} {
		if c.name != "" && t.Column(c.name) != nil {
			by = append(by, fmt.Sprintf("%s %q", c.what, c.name))
		}
	}
	if len(by) == 0 {
		return "none of its columns"
	}
	if len(by) > 1 && s.Order == config.OrderTime {
		by[0], by[1] = by[1], by[0]
	}
	return strings.Join(by, ", then ")
}
