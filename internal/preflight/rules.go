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
// would differ; so would a table that one of them selects and the other does not. Each knows only its own configuration, so they
// tell each other.

// StampsDiffer is the code of a table whose conflicts are decided otherwise elsewhere, and SelectionDiffers that of one that is
// selected in one of two regions.
const (
	StampsDiffer     = "stamps_differ"
	SelectionDiffers = "selection_differs"
)

// Rules is what a region tells the others of its configuration: what decides conflicts, and which tables it selects.
type Rules struct {
	Version   string `json:"version"`
	UpdatedAt string `json:"updated_at"`
	Order     string `json:"order"`
	Tables    []Rule `json:"tables,omitempty"`
	// Direction and the two lists are empty in what a program says that did not tell them.
	Direction string   `json:"direction,omitempty"`
	Include   []string `json:"include,omitempty"`
	Exclude   []string `json:"exclude,omitempty"`
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
	r := Rules{Version: cfg.Stamps.Version, UpdatedAt: cfg.Stamps.UpdatedAt, Order: string(cfg.Stamps.Order), Direction: string(cfg.Direction)}
	for _, p := range cfg.Tables.Include {
		r.Include = append(r.Include, p.String())
	}
	for _, p := range cfg.Tables.Exclude {
		r.Exclude = append(r.Exclude, p.String())
	}
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

// config makes a configuration of which only Table, Selected and what it does is used.
func (r Rules) config() (*config.Config, error) {
	c := &config.Config{Stamps: config.Stamps{Version: r.Version, UpdatedAt: r.UpdatedAt, Order: config.Order(r.Order)}, Direction: config.Direction(r.Direction)}
	pattern := func(list *[]config.Pattern, text string) error {
		p, err := config.ParsePattern(text)
		if err != nil {
			return fmt.Errorf("read rules of another region: %w", err)
		}
		*list = append(*list, p)
		return nil
	}
	for _, t := range r.Tables {
		var match []config.Pattern
		if err := pattern(&match, t.Match); err != nil {
			return nil, err
		}
		c.Tables.Rules = append(c.Tables.Rules, config.Rule{Match: match[0], Version: t.Version, UpdatedAt: t.UpdatedAt, Order: config.Order(t.Order)})
	}
	for _, text := range r.Include {
		if err := pattern(&c.Tables.Include, text); err != nil {
			return nil, err
		}
	}
	for _, text := range r.Exclude {
		if err := pattern(&c.Tables.Exclude, text); err != nil {
			return nil, err
		}
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
	unlike(f, region, other, fs)
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

// unlike finds the tables that are selected here or in another region, and not in both, where changes would go from the one to the other.
func unlike(f *facts, region string, other *config.Config, fs *Findings) {
	if len(other.Tables.Include) == 0 {
		return // it did not say
	}
	const remedy = "select the table in tables of both regions, or exclude it in both, and restart; its rows are copied when both select it"
	for _, t := range f.tables {
		here, there := f.cfg.Selected(t.Schema, t.Name), other.Selected(t.Schema, t.Name)
		switch {
		case t.Extension || t.Partition || here == there:
		case here && f.cfg.Publishes() && other.Applies():
			fs.addTable(t.Ref(), Warning, SelectionDiffers, remedy, fmt.Sprintf("not selected in region %s: what is written here is left out there", region),
				"region %s does not select %s: what is written here is left out there", region, t.Ref())
		case there && other.Publishes() && f.cfg.Applies():
			fs.addTable(t.Ref(), Warning, SelectionDiffers, remedy, fmt.Sprintf("the lists of region %s select it, if it has it, and those here do not: what is written there is left out here", region),
				"the lists of region %s select %s, if it has it, and those here do not: what is written there is left out here", region, t.Ref())
		}
	}
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
