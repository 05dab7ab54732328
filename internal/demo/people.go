package demo

import (
	"math/rand/v2"
	"sync"
	"time"
)

// fate says what may happen to a user, so that no operation leaves an orphan: foreign keys
// hold inside a region, not across the link.
type fate uint8

const (
	disposable fate = iota // has no children: may be deleted anywhere
	ordinary               // children of its home region only: may be deleted there
	lasting                // its children are changed anywhere: never deleted
)

// person is a user row that a region's application knows.
type person struct {
	key       string
	createdAt time.Time
	fate      fate
}

// login names a session by its token, or a subscription by its external id, and its user.
type login struct {
	token, user string
	createdAt   time.Time
	lasting     bool // its user is
}

// people is what a region's application remembers of the rows that it made itself: only the
// home region of a user adds children to it, so a delete elsewhere never orphans any.
// It is safe for concurrent use.
type people struct {
	mu            sync.Mutex
	users         []person
	logins        []login
	subscriptions []login
}

func (p *people) addUser(u person) { p.mu.Lock(); p.users = append(p.users, u); p.mu.Unlock() }
func (p *people) addLogin(l login) { p.mu.Lock(); p.logins = append(p.logins, l); p.mu.Unlock() }
func (p *people) addSubscription(l login) {
	p.mu.Lock()
	p.subscriptions = append(p.subscriptions, l)
	p.mu.Unlock()
}

// user picks a user that fits, made before the given time.
func (p *people) user(rng *rand.Rand, before time.Time, fits func(person) bool) (person, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 16 { // users that do not fit are few enough
		if len(p.users) == 0 {
			break
		}
		if u := p.users[rng.IntN(len(p.users))]; u.createdAt.Before(before) && fits(u) {
			return u, true
		}
	}
	return person{}, false
}

// take picks like user and forgets it, for deletes.
func (p *people) take(rng *rand.Rand, before time.Time, fits func(person) bool) (person, bool) {
	u, ok := p.user(rng, before, fits)
	if !ok {
		return u, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.users {
		if p.users[i].key == u.key {
			p.users[i] = p.users[len(p.users)-1]
			p.users = p.users[:len(p.users)-1]
			return u, true
		}
	}
	return u, false // another worker was faster
}

func (p *people) login(rng *rand.Rand, remove bool) (login, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pick(rng, &p.logins, remove)
}

func (p *people) subscription(rng *rand.Rand) (login, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pick(rng, &p.subscriptions, false)
}

// settledSubscription picks a subscription of a lasting user, made before the given time.
func (p *people) settledSubscription(rng *rand.Rand, before time.Time) (login, bool) {
	for range 16 {
		if s, ok := p.subscription(rng); ok && s.lasting && s.createdAt.Before(before) {
			return s, true
		}
	}
	return login{}, false
}

func pick(rng *rand.Rand, from *[]login, remove bool) (login, bool) {
	list := *from
	if len(list) == 0 {
		return login{}, false
	}
	i := rng.IntN(len(list))
	l := list[i]
	if remove {
		list[i] = list[len(list)-1]
		*from = list[:len(list)-1]
	}
	return l, true
}

func anyone(person) bool            { return true }
func childless(p person) bool       { return p.fate == disposable }
func mayHaveChildren(p person) bool { return p.fate != disposable }
func mortal(p person) bool          { return p.fate != lasting }
