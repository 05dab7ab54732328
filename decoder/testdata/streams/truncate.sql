-- One table, several, cascading along a foreign key, with rows around it.
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE other (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int);
-- setup ends
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1, 1);
INSERT INTO other (n) VALUES (1);
TRUNCATE other RESTART IDENTITY;
TRUNCATE parent CASCADE;
BEGIN;
INSERT INTO other (n) VALUES (2);
TRUNCATE parent, child, other;
INSERT INTO other (n) VALUES (3);
COMMIT;
BEGIN;
TRUNCATE other;
ROLLBACK;
