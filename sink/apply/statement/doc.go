// Package statement writes the SQL that reads and changes rows of users' tables. It is pure: the
// same table and shape give the same text, which the goldens in testdata hold.
//
// Every name is qualified and quoted, and every operator is named with its schema, because
// the appliers' search_path is empty. Plain tables are named with ONLY, so that children of an
// inheritance tree are not hit by changes of their parent. Rows without a key are addressed by
// (tableoid, ctid).
package statement
