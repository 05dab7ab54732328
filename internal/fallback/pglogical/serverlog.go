package pglogical

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// readerName is the function through which the role of run reads the conflicts, and nothing else, of the server's log.
const readerName = "pgwaltz.pglogical_conflicts"

// readerBody gives the conflicts in the next piece of the file, and where the piece ends. A file is one of the server's own, or it is the
// present one. What began before the piece is given again: its reader knows what it had. The texts are escaped, since a log may hold any bytes.
const readerBody = `
declare
  present text := pg_current_logfile();
  size bigint;
begin
  lines := '{}';
  if present is null then
    file := null; at := 0; return;
  end if;
  if file is null or file <> present and not exists (select from pg_ls_logdir() l where regexp_replace(present, '[^/]*$', '') || l.name = file) then
    file := present; at := null;
  end if;
  size := (pg_stat_file(file)).size;
  at := coalesce(at, greatest(size - 67108864, 0));
  if at > size then
    at := 0;
  elsif at = size then
    if file <> present then
      file := present; at := 0;
    end if;
    return;
  end if;
  lines := array(select substring(p from '^([A-Z]{6}? on relation .*?commit_lsn=[0-9A-F/]+?)[^0-9A-F/]')
    from unnest((string_to_array(encode(pg_read_binary_file(file, greatest(at - 262144, 0), least(at, 262144) + 1048576), 'escape'), 'CONFLICT: remote '))[2:]) p
    where p ~ '^[A-Z]{6}? on relation .*?commit_lsn=[0-9A-F/]+?[^0-9A-F/]');
  at := least(size, at + 1048576);
end
`

// readerSQL makes the function. It belongs to the superuser who runs the switch.
func readerSQL(owner, role string) string {
	const signature = readerName + "(text, bigint)"
	return "create or replace function " + readerName + "(inout file text, inout at bigint, out lines text[]) language plpgsql security definer set search_path = pg_catalog, pg_temp as $reader$" + readerBody + "$reader$;\n" +
		"alter function " + signature + " owner to " + pg.Quote(owner) + "; revoke all on function " + signature + " from public; grant execute on function " + signature + " to " + pg.Quote(role)
}

// ServerLog reads the conflicts of pglogical out of the server's log, piece by piece. It is used by one goroutine.
type ServerLog struct {
	// Path is the file that the server's output goes into where it has no collector; "" where the server has to be asked.
	Path string

	file string // of the collector
	at   *int64 // how far it is read, in bytes; nil for not yet
}

// The sizes of readerBody, in bytes: one piece, what is read again before it, and how much of a file is read at first.
const (
	logPiece = 1 << 20
	logAgain = 1 << 18
	logFirst = 64 << 20
)

// ErrUnread says why the log is not read, and what to do about it.
var ErrUnread = errors.New("the server's log cannot be read")

// Next returns texts that begin behind "CONFLICT: remote ", of which some may have been returned before, and whether there is more to
// read. An error that is ErrUnread says what to do about it.
func (l *ServerLog) Next(ctx context.Context, q pg.Querier) (texts []string, more bool, err error) {
	if l.Path != "" {
		return l.nextOfFile()
	}
	var there, may bool
	if err := q.QueryRow(ctx, `select p is not null, coalesce(pg_catalog.has_function_privilege(p, 'execute'), false) from pg_catalog.to_regprocedure('`+readerName+`(text, bigint)') p`).Scan(&there, &may); err != nil {
		return nil, false, fmt.Errorf("look for %s: %w", readerName, err)
	}
	if !there || !may {
		return nil, false, fmt.Errorf("%w: pgwaltz mode switch pglogical, again, lets this role read its conflicts", ErrUnread)
	}
	var file *string
	var at int64
	if err := q.QueryRow(ctx, `select file, at, lines from `+readerName+`($1, $2)`, orNull(l.file), l.at).Scan(&file, &at, &texts); err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrUnread, err)
	}
	if file == nil {
		return nil, false, fmt.Errorf("%w: logging_collector is off; set it, or fallback.server_log", ErrUnread)
	}
	more = l.at == nil || *file != l.file || at != *l.at
	l.file, l.at = *file, &at
	for i, t := range texts {
		texts[i] = plain(unescape(t), *file)
	}
	return texts, more, nil
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (l *ServerLog) nextOfFile() (texts []string, more bool, err error) {
	f, err := os.Open(l.Path)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrUnread, reason(err))
	}
	defer f.Close() //nolint:errcheck // it was read
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrUnread, reason(err))
	}
	size, at := info.Size(), max(0, info.Size()-logFirst)
	if l.at != nil {
		at = *l.at
	}
	switch {
	case at > size: // another file of that name
		at = 0
	case at == size:
		l.at = &at
		return nil, false, nil
	}
	from := max(0, at-logAgain)
	piece := make([]byte, at-from+logPiece)
	n, err := f.ReadAt(piece, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("%w: %w", ErrUnread, reason(err))
	}
	for _, t := range bytes.Split(piece[:n], []byte("CONFLICT: remote "))[1:] {
		if complete.Match(t) {
			texts = append(texts, plain(string(t), l.Path))
		}
	}
	next := min(size, at+logPiece)
	l.at = &next
	return texts, true, nil
}

// reason leaves the verb out, which the reader has said.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

var complete = regexp.MustCompile(`commit_lsn=[0-9A-F]+/[0-9A-F]+[^0-9A-F]`)

// unescape undoes what encode(..., 'escape') does.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b.WriteByte(s[i])
		case s[i+1] == '\\':
			b.WriteByte('\\')
			i++
		case i+3 < len(s):
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
		}
	}
	return b.String()
}

// lookReader reads whether the function is as it is made.
func (l *Local) lookReader(ctx context.Context, conn *pgx.Conn) error {
	err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_proc p where p.oid = pg_catalog.to_regprocedure('`+readerName+`(text, bigint)') and p.prosrc = $1 and p.prosecdef
  and pg_catalog.has_function_privilege(r.oid, p.oid, 'execute')) from pg_catalog.pg_roles r where r.rolname = $2`, readerBody, l.Runtime).Scan(&l.Reader)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", readerName, err)
	}
	return nil
}
