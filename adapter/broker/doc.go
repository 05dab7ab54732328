// Package broker is the sidecar's NATS: a server inside the process by default, or an
// external one. It gives the rest of the program one connection, JetStream of the own and of
// the peers' regions, a small control plane, and word of who is in reach.
//
//	region eu                                   region us
//	sidecar ── in process ── server             server ── in process ── sidecar
//	                         JetStream                  JetStream
//	                         domain pgwaltz-eu          domain pgwaltz-us
//	                             └──── one leaf link ────┘
//	                             either side dials
//
// Each region's server is a JetStream domain of its own and keeps that region's stream with
// an fsync for every message. Everything between two regions crosses the one leaf link, in
// both directions whichever side dialled: a peer pulls our stream by asking the gate of our process,
// which hands on what a reader may ask, and requests and acknowledgements are plain subjects. The frames themselves are denied on
// the link as subjects, and so is JetStream: a peer can read, not write.
//
// More than two regions meet in a tree of links, with one that listens in the middle; links
// must not form a ring: NATS refuses that as a loop, drops links of it and tries again every 30 s.
//
// A Broker watches its own store: JetStream goes on acknowledging into a folder that was
// deleted under it. When that is seen, the server is started again with an empty store, and
// the publisher finds that its stream is gone and begins anew from the slot.
package broker
