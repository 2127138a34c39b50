// What bench/run.sh asks of a server, done with net/http.
//
//	go build -o server bench/peers/server.go && GOMAXPROCS=1 ./server PORT ROOT
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
)

func constant(kind, text string) http.HandlerFunc {
	body := []byte(text)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Write(body)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func main() {
	http.HandleFunc("/plaintext", constant("text/plain", "Hello, World!"))
	http.HandleFunc("/json", constant("application/json", `{"message":"Hello, World!"}`))
	http.HandleFunc("/echo", echo)
	http.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(os.Args[2]))))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
