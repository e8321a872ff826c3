// Asks the server at ADDRESS 250 times a second, each time over a new connection, or, with a second argument, over kept ones;
// every tenth request takes a second. Prints a line for every 100 answers. At the end of its stdin, prints how many were asked,
// how many failed, and how many processes have answered.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

func main() {
	address := os.Args[1]
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: len(os.Args) < 3, MaxIdleConnsPerHost: 100}, Timeout: 30 * time.Second}
	var lock sync.Mutex
	var all sync.WaitGroup
	asked, failed, answered, servers := 0, 0, 0, map[string]int{}
	ask := func(path string) {
		defer all.Done()
		answer, err := client.Get("http://" + address + path)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		lock.Lock()
		defer lock.Unlock()
		if err != nil || answer.StatusCode != 200 {
			failed++
			fmt.Fprintln(os.Stderr, path, err)
		} else {
			servers[string(body)]++
			if answered++; answered%100 == 0 {
				fmt.Println(answered)
			}
		}
	}
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	start := time.Now()
	for tick := time.NewTicker(4 * time.Millisecond); ; asked++ {
		select {
		case <-over:
			rate := float64(asked) / time.Since(start).Seconds()
			all.Wait()
			fmt.Printf("%d requests, %.0f a second, %d failed, answered by %d processes\n", asked, rate, failed, len(servers))
			return
		case <-tick.C:
			all.Add(1)
			path := "/"
			if asked%10 == 0 {
				path = "/slow"
			}
			go ask(path)
		}
	}
}
