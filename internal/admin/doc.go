// Package admin is the sidecar's HTTP side: /metrics, /livez, /readyz and /status.
//
// It reads only: GET and HEAD, no verb that changes anything, no secret and no row value in
// any answer. By default it listens on the loopback interface.
//
//	/livez   200 while the work loops turn; 503 with the reason when one is stuck: restart it
//	/readyz  200 and the state word when this sidecar does its part (replicating, catching-up,
//	         parked, standby); 503 and the word otherwise (partitioned, gap, down)
//	/status  status.Status as JSON, what `pgwaltz status` prints
package admin
