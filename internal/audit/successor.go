package audit

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// The trail announces a key for checkpoints when it is made. So trust in one key extends to the
// next: a checkpoint that the previous key signed covers the entry that names the next.

const keyDetail = "audit key "

// KeyDetail is the Detail of the entry, with Act Created, that announces the key that signs
// checkpoints from then on.
func KeyDetail(verifierKey string) string { return keyDetail + verifierKey }

// AnnouncedKey returns the verifier key that an entry announces, if any.
func (e *Entry) AnnouncedKey() (verifierKey string, ok bool) {
	key, ok := strings.CutPrefix(e.Detail, keyDetail)
	if !ok || e.Act != Created || CheckVerifierKey(key) != nil {
		return "", false
	}
	return key, true
}

// Announcement is a key for checkpoints that the trail announces.
type Announcement struct {
	Sequence    uint64 // of the entry that announces it
	VerifierKey string
}

// Announcements returns the keys that a trail announces. Verify checks whether the entries are the
// trail's.
func Announcements(entries iter.Seq2[Stored, error]) (all []Announcement, err error) {
	for _, err := range Announced(entries, &all) {
		if err != nil {
			return nil, fmt.Errorf("read the keys that the trail names: %w", err)
		}
	}
	return all, nil
}

// Announced yields entries unchanged and appends the keys that they announce to all.
func Announced(entries iter.Seq2[Stored, error], all *[]Announcement) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		for stored, err := range entries {
			if err == nil {
				if e, fault := ParseEntry(stored.Bytes); fault == nil {
					if key, ok := e.AnnouncedKey(); ok {
						*all = append(*all, Announcement{e.Sequence, key})
					}
				}
			}
			if !yield(stored, err) {
				return
			}
		}
	}
}

// OpenAll opens notes with the trusted keys, and with keys that become trusted through them: a key
// becomes trusted once a trusted key, announced earlier, has signed a checkpoint over its
// announcement. Earlier keys do not: they may have been replaced for a reason. The result has an
// element for each note, which is nil if no trusted key signed it.
//
// The result holds if Verify confirms that the checkpoints are those of the trail from which the
// announcements were read.
func OpenAll(notes [][]byte, keys []string, announced []Announcement) []*Checkpoint {
	opened := make([]*Checkpoint, len(notes))
	believed := make(map[string]bool)
	for queue := slices.Clone(keys); len(queue) > 0; queue = queue[1:] {
		key := queue[0]
		if believed[key] {
			continue
		}
		believed[key] = true
		over := openWith(notes, key, opened)
		at := slices.IndexFunc(announced, func(a Announcement) bool { return a.VerifierKey == key })
		for _, a := range announced[at+1:] {
			if a.Sequence < over {
				queue = append(queue, a.VerifierKey)
			}
		}
	}
	return opened
}

// openWith opens the notes that a key has signed, and returns how many entries the largest of them
// covers.
func openWith(notes [][]byte, key string, opened []*Checkpoint) (over uint64) {
	for i, note := range notes {
		c, err := Open(note, key)
		if err != nil {
			continue
		}
		over = max(over, c.Size)
		if opened[i] == nil {
			opened[i] = &c
		}
	}
	return over
}
