-- Replication origins: a foreign one, a forwarded one, none again. A relation is described inside a suppressed transaction only.
CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE TABLE u (id int PRIMARY KEY, n int);
SELECT pg_replication_origin_create('applied');
SELECT pg_replication_origin_create('forwarded');
-- setup ends
INSERT INTO t VALUES (1, 1);
SELECT pg_replication_origin_session_setup('applied');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/1234', '2024-01-02 03:04:05+00');
INSERT INTO u VALUES (1, 1);
UPDATE t SET n = 2;
DELETE FROM u;
TRUNCATE u;
COMMIT;
INSERT INTO t VALUES (2, 2);
SELECT pg_replication_origin_session_reset();
INSERT INTO u VALUES (2, 2);
SELECT pg_replication_origin_session_setup('forwarded');
INSERT INTO t VALUES (3, 3);
SELECT pg_replication_origin_session_reset();
INSERT INTO t VALUES (4, 4);
