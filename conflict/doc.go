// Package conflict decides which of two writes of one row stays. It is pure: no I/O, no
// clock, no goroutines; every region that sees the same two entries decides the same.
//
// An entry of a key is a live row or a tombstone. Entries are totally ordered by generation,
// version, updated_at (or updated_at, version: Policy.Order), then a live row is above a
// tombstone, then the contents are compared bytewise (Content). The higher entry stays, in
// whatever order and however often the events arrive.
//
// The origin gives each change its stamp and says what it overwrote, its base (StampChange).
// A write that does not rise above what it overwrote is lifted into the next generation, so
// that a region's own later write always beats its earlier one. Where the base is the local
// entry, the event is its successor and no conflict. Resolve is this table; the first line
// that fits decides:
//
//	kind       op             local    base        order        image | verdict type                  then
//	-          insert,update  unknown  -           -            whole | apply   -                     -        unless live update
//	self       insert,update  unknown  -           -            part  | keep    -                     -
//	-          insert,update  unknown  -           -            part  | park    update_missing        -
//	-          delete,brief   unknown  -           -            -     | apply   -                     -        unless live delete
//	live       update         unknown  -           -            whole | apply   update_missing        -
//	live       delete         unknown  -           -            -     | apply   delete_missing        -
//	self       insert,update  dead     -           gen>,>       part  | keep    -                     -
//	-          insert,update  dead     -           gen>,>       part  | park    -                     -
//	-          insert         dead     -           gen>         whole | apply   -                     -
//	self       insert,update  dead     -           gen>,>       whole | apply   update_deleted        pushback
//	-          insert,update  dead     -           gen>,>       whole | apply   update_deleted        -
//	live,copy  insert         dead     -           expired      whole | apply   -                     forget
//	live,copy  insert         dead     -           expired      part  | park    -                     -
//	live       insert,update  dead     -           <,expired    -     | keep    update_deleted        pushback
//	copy       insert,update  dead     -           <,expired    -     | keep    -                     pushback
//	-          insert,update  dead     -           <,expired    -     | keep    -                     -
//	-          delete,brief   dead     -           =            -     | same    -                     -
//	live       brief          dead     -           gen>         -     | apply   -                     -
//	live       brief          dead     -           expired      -     | apply   -                     forget
//	live       delete,brief   dead     -           gen>,>       -     | apply   delete_missing        -
//	live       delete,brief   dead     -           <,expired    -     | keep    delete_missing        -
//	-          delete,brief   dead     -           gen>,>       -     | apply   -                     -
//	-          delete,brief   dead     -           <,expired    -     | keep    -                     -
//	-          insert,update  live     -           =            -     | same    -                     -
//	-          insert,update  live     same        gen>,>,tie>  -     | apply   -                     -
//	self       insert,update  live     -           gen>,>,tie>  part  | keep    -                     -
//	-          insert,update  live     -           gen>,>,tie>  part  | park    -                     -
//	live       update         live     none        gen>,>       whole | apply   -                     -
//	self       insert         live     -           gen>,>,tie>  whole | apply   insert_exists         pushback
//	self       update         live     -           gen>,>,tie>  whole | apply   update_origin_differs pushback
//	copy       insert,update  live     -           gen>,>,tie>  whole | apply   insert_exists         -
//	-          insert         live     -           gen>,>,tie>  whole | apply   insert_exists         -
//	-          update         live     -           gen>,>,tie>  whole | apply   update_origin_differs -
//	live       insert         live     -           <,tie<       -     | keep    insert_exists         pushback
//	live       update         live     -           <,tie<       -     | keep    update_origin_differs pushback
//	copy       insert,update  live     -           <,tie<       -     | keep    insert_exists         pushback
//	repair     insert,update  live     -           tie<         -     | keep    -                     pushback
//	-          insert,update  live     -           <,tie<       -     | keep    -                     -
//	-          delete,brief   live     same        gen>,>       -     | apply   -                     -
//	live       delete         live     none        gen>,>       -     | apply   -                     -
//	self       delete,brief   live     -           gen>,>       -     | apply   delete_origin_differs pushback
//	-          delete,brief   live     -           gen>,>       -     | apply   delete_origin_differs -
//	live       delete,brief   live     -           <,tie<       -     | keep    delete_origin_differs pushback
//	copy       delete,brief   live     -           <,tie<       -     | keep    -                     pushback
//	repair     delete,brief   live     -           tie<         -     | keep    -                     pushback
//	-          delete,brief   live     -           <,tie<       -     | keep    -                     -
//
// A "-" on the left fits everything. The words:
//
//	op       insert: the row is new (also an insert and updates of it in one run); brief: an
//	         insert and a delete in one run
//	base     same: what the event overwrote is the local entry; other: it is not; none: the
//	         origin does not know, and nothing speaks against it; late: it does not know, and
//	         the local row has no lower version in its generation (update) or was written after
//	         the delete, also one that began the event's generation
//	order    of the event against the local entry. gen>: a later generation; >, <: by the
//	         stamp; tie>, tie<: equal stamps, decided by the contents; =: the same entry;
//	         expired: below a tombstone older than Policy.ForgetAfter (for a copied row: older
//	         than the row's time by that much)
//	image    part: it lacks unchanged values that the WAL does not hold, and the local row is
//	         not known to have the same (wal.Digest)
//
// A part whose contents are not known meets an equal stamp like one below it: only the contents
// could decide. Nothing is recorded of a part that waits for the rest: its origin is asked
// (wal.Wanted), and the answer decides what it was.
//
// Two rows of equal content that differ in their generation alone are no conflict either:
// nobody loses anything, and the higher generation is taken over.
//
// What waits because it lacks values, or because the table refuses it, is an entry like any other (Waiting). An
// application may give one stamp to several rows; then the contents decide, and where one that waits lacks the
// values that would, nobody here knows. It waits on then: it asks its origin, or the peers if it is an own one, and they answer with
// the highest that they hold. So the answer is this change, made whole, or something above it, or another row: then it is not held
// any more (Policy.Releases, Policy.Gone). What is known gives way to what asks, so nothing is lost that only one region had.
//
// # What the caller has to see to
//
// The decision is carried out in the transaction that locked and read the local entry.
//
// Apply sets the entry beside the row to the event's generation, up or down: an update that
// beats a tombstone of its own generation makes the entry say so (NextGeneration). If the
// tombstone stayed, the row would read as one generation too high.
//
// A run of changes of one key by one origin may be reduced to its net effect only as long as
// the stamps rise. Where one does not, the run ends and another begins; otherwise a write
// that no region could tell is lost would disappear in the sum.
//
// The stamps that a region gives to one key must not fall, and must be the same whenever a
// change is stamped: what it is stamped from is the join of the items (Item) of the key
// strictly below the change's commit position, whatever became known since. Item.Join only
// rises; Item.Time, Item.Born, Item.Over and StampOver are functions of it and of the change alone.
// Where something lower was written over an own entry that was not known yet, the next own change
// goes into a generation above that entry, and its base is what it really overwrote.
//
// Within one generation they may fall all the same, where a region could not wait for its own changes
// to be known (the slot is away, the stream is full): another region's row of the same generation is put
// over an own one that is above it, and the next own change rises above that row alone. No write is lost without a
// record by it:
//
//   - Every own change is published, and every other region resolves it once, as a Live event, against what it
//     has then. Only a change that rises above the one before it in a run is left out, and what follows
//     was built on it.
//   - A Live event that is kept out of a table is a conflict, except where the table says the same already, or
//     says that the key is dead and so does the event. So a change that comes below the earlier one of its
//     own region is recorded where the earlier one stands.
//   - What comes later and replaces it was made in some region. Either that region had the change, or what was built
//     on it, under the later write; or it compares the two when the change comes, and finds the
//     change below. That holds also where a third region takes the change for the base of the later write,
//     because an application gave one stamp to two rows: Resolve is silent there, and not in the region that
//     made the later write.
//
// # What waits
//
// An entry that a region cannot show waits (Waiting), at most one for each key. In the end all regions must show the highest
// entry that any of them shows or lets wait. Of two entries that meet where neither can be shown, the lower one is given up
// here. That is right as long as the higher one is not given up later for something lower. Where the WAL
// does not say what an update overwrote, a change of a region may come below an earlier one of the same region. While only
// changes of that region wait, the later one takes the place of the earlier one: their region shows the later one, and who
// shows the earlier one refuses it and tells everybody. But what another region's change gave way to is held
// (Waiting.Held), and so are repairs: the region that told of it will not tell again. What is held ends in two ways: it is
// shown, and told to everybody then, since its origin may have gone down; or something at or above it is
// shown. If values of it are lost, every other region is asked, and has to have answered; the answers bring
// what was given up for it.
//
// What waits has not been resolved yet, which the above asks of every own change in every other region. So where its waiting
// ends and it was not made part of what ends it, it is lost here, and recorded (Rivals): against another region's change, against
// an own one, and against a later one of its own region that was not made over it (Waiting.Bypassed). The region that it is of
// may have taken what was put over it there for its successor, when the generation of its own change was not known.
//
// A region's own change may end the waiting of another region's change in the self-merge. That one was not refused when it
// came, because the own one was not known then, and its region may show it: it may have been made over the own one. So the
// others are told of what stands (Policy.Undoes).
//
// What a region tells another one, it holds. An entry that waits, and is told as the answer to a question, is held from then on: who hears
// of it may show it above a later and lower change of its origin, which would end its waiting here. If it is told with
// values of the row that is here, it waits with these values from then on. Otherwise two regions could each take the other one's
// row for one stamp, and stay so.
//
// # Stamp columns that differ
//
// A stamp is read by the columns that the event's description of the table has (ColumnsOf), and so is that of the row that the
// event meets: what a region wrote before its table was altered is compared by the same columns as what it meets. While two
// regions have different stamp columns (Columns.Alike), two writes that cross are so compared by the columns of the one in one
// region, and by those of the other in the other one, and the regions may differ. Where an event is not told from a
// successor without its stamp, the caller therefore notes the table, and when the columns are alike again, its rows and
// tombstones are copied: both regions compare them by the same columns then, and what loses is sent back.
//
// Own changes with Stamping.SelfMerge are run against the own database as Self events, in
// WAL order. One that a later own change of the same key has superseded may be left out;
// otherwise an application could see its older write for a moment.
package conflict
