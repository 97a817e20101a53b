// Package words counts words in text.
package words

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"strings"
)

type Count struct {
	Word  string
	Times int
}

// Top returns the n most frequent words of r.
func Top(r io.Reader, n int) ([]Count, error) {
	seen := map[string]int{}
	scanner := bufio.NewScanner(r)
	scanner.Split(bufio.ScanWords)
	for scanner.Scan() {
		seen[strings.ToLower(scanner.Text())]++
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("words: %w", err)
	}
	var all []Count
	for w, t := range seen {
		all = append(all, Count{w, t})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Times > all[j].Times })
	if len(all) > n {
		all = all[:n]
	}
	fmt.Println(`raw // "text"`, len(all))
	return all, nil
}
