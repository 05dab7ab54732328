-- Values out of line: untouched, touched, in a key, under FULL.
CREATE TABLE by_default (id int PRIMARY KEY, n int, doc text);
ALTER TABLE by_default ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE by_full (id int PRIMARY KEY, n int, doc text, extra text);
ALTER TABLE by_full REPLICA IDENTITY FULL;
ALTER TABLE by_full ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE long_key (id text PRIMARY KEY, n int, doc text);
ALTER TABLE long_key ALTER id SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL;
-- setup ends
INSERT INTO by_default VALUES (1, 1, repeat('a', 2100)), (2, 2, 'short');
UPDATE by_default SET n = 10 WHERE id = 1;
UPDATE by_default SET id = 11 WHERE id = 1;
UPDATE by_default SET doc = repeat('b', 2100) WHERE id = 11;
UPDATE by_default SET doc = NULL WHERE id = 11;
DELETE FROM by_default WHERE id = 11;
INSERT INTO by_full VALUES (1, 1, repeat('c', 2100), NULL);
UPDATE by_full SET n = 10 WHERE id = 1;
UPDATE by_full SET doc = repeat('d', 2100), extra = 'x' WHERE id = 1;
DELETE FROM by_full WHERE id = 1;
INSERT INTO long_key VALUES (repeat('k', 2100), 1, repeat('e', 2100));
UPDATE long_key SET n = 2;
DELETE FROM long_key;
-- More than one part under the goldens' limit, in one transaction.
BEGIN;
INSERT INTO by_default SELECT g, g, repeat('p', 100) FROM generate_series(101, 170) g;
UPDATE by_default SET doc = repeat('q', 4500) WHERE id = 120;
DELETE FROM by_default WHERE id > 160;
COMMIT;
