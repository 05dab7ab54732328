-- Logical messages: ours and foreign, transactional and not, in rolled-back transactions; the marker.
CREATE TABLE t (id int PRIMARY KEY, n int);
-- setup ends
SELECT pg_logical_emit_message(false, 'pgwaltz.note', 'outside');
SELECT pg_logical_emit_message(true, 'pgwaltz.heartbeat', 'beat');
SELECT pg_logical_emit_message(true, 'other.tool', 'not ours');
SELECT pg_logical_emit_message(false, 'other.tool', 'not ours');
BEGIN;
INSERT INTO t VALUES (1, 1);
SELECT pg_logical_emit_message(false, 'pgwaltz.note', 'from inside');
SELECT pg_logical_emit_message(true, 'pgwaltz.note', '\x00ff'::bytea);
INSERT INTO t VALUES (2, 2);
SELECT pg_logical_emit_message(true, 'other.tool', 'not ours');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'pgwaltz.note', 'rolled back');
INSERT INTO t VALUES (3, 3);
ROLLBACK;
BEGIN;
SELECT pg_logical_emit_message(true, 'pgwaltz.apply', 'us');
INSERT INTO t VALUES (4, 4);
SELECT pg_logical_emit_message(true, 'pgwaltz.note', 'in an echo');
COMMIT;
INSERT INTO t VALUES (5, 5);
BEGIN;
INSERT INTO t VALUES (6, 6);
SELECT pg_logical_emit_message(true, 'pgwaltz.apply', 'late, but nothing went out');
INSERT INTO t VALUES (7, 7);
COMMIT;
