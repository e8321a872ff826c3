// The graceful server of Go's own documentation (net/http, Server.Shutdown), on a listening socket that it inherits as
// descriptor 3. It says on descriptor 4 that it is ready. MODE is what a new binary can do wrong.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Set by the linker: good; crash; hang; silent, which serves and never says that it is ready; or careless, which does not finish
// its requests at SIGTERM.
var mode = "good"

func main() {
	switch mode {
	case "crash":
		panic("a new binary that crashes")
	case "hang":
		for {
			time.Sleep(time.Hour)
		}
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatal(err)
	}
	var server http.Server
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		fmt.Fprintln(w, os.Getpid())
	})
	drained := make(chan struct{})
	go func() {
		if mode == "careless" {
			return
		}
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		<-asked
		if err := server.Shutdown(context.Background()); err != nil {
			log.Printf("shutdown: %v", err)
		}
		close(drained)
	}()
	if mode != "silent" {
		fmt.Fprintln(os.NewFile(4, "ready"))
	}
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-drained
}
