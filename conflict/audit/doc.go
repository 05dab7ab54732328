// Package audit is the conflict log: the table pgwaltz.conflict.
//
// A row is written in the transaction that settles the conflict, so it exists if and only
// if the decision does. Both regions write a row under the same event id, each with its
// own view (local and remote change sides); ON CONFLICT (event_id) DO NOTHING makes a
// redelivered event harmless. The table is in no publication and never travels.
//
// Images are jsonb objects from column name to value, typed where JSON has the type. A
// column that the WAL did not hold (an unchanged TOAST value) is absent from the image. A
// nil image stands for "no row": a delete, or a row that was not there. Redacted columns
// hold the string "[redacted]", whatever they held before.
package audit
