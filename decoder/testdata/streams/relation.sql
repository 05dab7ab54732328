-- Tables that change while rows flow, also in the middle of a transaction.
CREATE TABLE t (id int PRIMARY KEY, n int, gone text);
CREATE TABLE same (id int PRIMARY KEY);
-- setup ends
INSERT INTO t VALUES (1, 1, 'x');
INSERT INTO same VALUES (1);
ALTER TABLE t ADD added text DEFAULT 'later';
UPDATE t SET n = 2;
ALTER TABLE t DROP gone;
UPDATE t SET n = 3;
ALTER TABLE t ALTER n TYPE bigint;
UPDATE t SET n = 4;
ALTER TABLE t RENAME n TO m;
ALTER TABLE t RENAME TO t2;
UPDATE t2 SET m = 5;
BEGIN;
UPDATE t2 SET m = 6;
ALTER TABLE t2 REPLICA IDENTITY FULL;
UPDATE t2 SET m = 7;
ALTER TABLE t2 ADD more int;
UPDATE t2 SET more = 8;
COMMIT;
CREATE INDEX ON same (id);
INSERT INTO same VALUES (2);
CREATE TABLE made (id int PRIMARY KEY) ;
INSERT INTO made VALUES (1);
DROP TABLE made;
CREATE TABLE made (other text PRIMARY KEY);
INSERT INTO made VALUES ('1');
