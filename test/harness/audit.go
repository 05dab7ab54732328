package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Conflict is one row of a region's audit log, in the words of the cases.
type Conflict struct {
	EventID string
	Type    string
	Verdict string
	Reason  string
	Schema  string
	Table   string
	Key     map[string]string // column -> value as text
	Winner  string
	Loser   string
	Region  string
}

// String is a short form for messages.
func (c Conflict) String() string {
	var key []string
	for k, v := range c.Key {
		key = append(key, k+"="+v)
	}
	return fmt.Sprintf("%s %s %s winner=%s reason=%s", c.Type, c.Table, strings.Join(key, ","), c.Winner, c.Reason)
}

// Conflicts reads the audit log of a region, oldest first.
func (r *Region) Conflicts(ctx context.Context) ([]Conflict, error) {
	c, err := r.Cluster.Connect(ctx, r.Database)
	if err != nil {
		return nil, fmt.Errorf("read audit log of %s: %w", r.Side, err)
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, `select coalesce(event_id::text,''), type, coalesce(verdict,''), coalesce(reason,''), schema_name, table_name,
coalesce(key,'{}')::text, coalesce(winner,''), coalesce(loser,''), coalesce(region,'') from pgwaltz.conflict order by id`)
	if err != nil {
		return nil, fmt.Errorf("read audit log of %s: %w", r.Side, err)
	}
	var out []Conflict
	var x Conflict
	var key string
	_, err = pgx.ForEachRow(rows, []any{&x.EventID, &x.Type, &x.Verdict, &x.Reason, &x.Schema, &x.Table, &key, &x.Winner, &x.Loser, &x.Region}, func() error {
		x.Key = keyText(key)
		out = append(out, x)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read audit log of %s: %w", r.Side, err)
	}
	return out, nil
}

func keyText(text string) map[string]string {
	raw := map[string]json.RawMessage{}
	if json.Unmarshal([]byte(text), &raw) != nil {
		return map[string]string{"": text}
	}
	out := map[string]string{}
	for k, v := range raw {
		var s string
		if json.Unmarshal(v, &s) == nil {
			out[k] = s
		} else {
			out[k] = string(v)
		}
	}
	return out
}
