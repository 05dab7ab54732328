-- User types come with their names; built-in ones with odd values.
CREATE SCHEMA zz;
CREATE TYPE zz.mood AS ENUM ('sad', 'so so');
CREATE TYPE zz.point3 AS (x int, y int, label text);
CREATE DOMAIN zz.positive AS int CHECK (VALUE > 0);
CREATE TABLE zz.own (id int PRIMARY KEY, mood zz.mood, moods zz.mood[], at zz.point3, n zz.positive);
CREATE TABLE builtin (id uuid PRIMARY KEY, b bool, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision,
  num numeric, num2 numeric(10,2), t text, vc varchar(20), c char(4), raw bytea, d date, ts timestamp, tz timestamptz,
  tz0 timestamptz(0), iv interval, j json, jb jsonb, ints int[], r int4range, ip inet, tw text GENERATED ALWAYS AS (t || '!') STORED);
-- setup ends
INSERT INTO zz.own VALUES (1, 'so so', '{sad,NULL}', '(1,,"a,b")', 5);
INSERT INTO builtin VALUES ('00000000-0000-4000-8000-000000000001', true, -32768, 2147483647, -9223372036854775808, 'NaN', 0.1,
  12345678901234567890.123456789, -0.50, 'ünï', 'v', 'c', '\x00ff', '2024-02-29', '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56.789012+02',
  '2024-02-29 12:34:56+00', '1 mon -2 days 03:04:05.6', '{"a": 1}', '{"b": [null, 2]}', '[0:1]={1,NULL}', '[1,5)', '10.0.0.1/8');
INSERT INTO builtin VALUES ('00000000-0000-4000-8000-000000000002', false, 0, 0, 0, '-Infinity', '1e308',
  'NaN', 'NaN', '', '', '', '', '-infinity', 'infinity', '-infinity', 'infinity', '0', 'null', 'null', '{}', 'empty', '::1');
INSERT INTO builtin (id, d, ts) VALUES ('00000000-0000-4000-8000-000000000003', '0044-03-15 BC', '0044-03-15 12:00:00 BC');
ALTER TYPE zz.mood RENAME TO temper;
UPDATE zz.own SET mood = 'sad';
