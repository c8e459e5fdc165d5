// Signs a request for Tidegate and sends it. Go 1.18 or newer, standard library alone.
//
//	X_SOURCE=test X_SECRET=demo-secret-of-test go run sign.go [--headers] METHOD URL [FILE]
//
// FILE is the body. --headers prints the three headers instead of sending. X_TIME sets the time, for tests.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// signRequest sets the three headers. body holds the exact bytes that are sent.
func signRequest(request *http.Request, source, secret string, body []byte, now string) {
	bodyHash := sha256.Sum256(body)
	text := strings.Join([]string{source, now, request.Method, request.URL.RequestURI(), hex.EncodeToString(bodyHash[:])}, "\n")
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	request.Header.Set("x-source", source)
	request.Header.Set("x-time", now)
	request.Header.Set("x-m", hex.EncodeToString(mac.Sum(nil)))
}

func main() {
	words := os.Args[1:]
	headersOnly := len(words) > 0 && words[0] == "--headers"
	if headersOnly {
		words = words[1:]
	}
	if len(words) < 2 || len(words) > 3 {
		fail("usage: X_SOURCE=... X_SECRET=... go run sign.go [--headers] METHOD URL [FILE]")
	}
	var body []byte
	if len(words) == 3 {
		var err error
		if body, err = os.ReadFile(words[2]); err != nil {
			fail(err)
		}
	}
	request, err := http.NewRequest(words[0], words[1], bytes.NewReader(body))
	if err != nil {
		fail(err)
	}
	now := os.Getenv("X_TIME")
	if now == "" {
		now = strconv.FormatInt(time.Now().Unix(), 10)
	}
	signRequest(request, os.Getenv("X_SOURCE"), os.Getenv("X_SECRET"), body, now)
	if headersOnly {
		for _, name := range []string{"x-source", "x-time", "x-m"} {
			fmt.Printf("%s: %s\n", name, request.Header.Get(name))
		}
		return
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.StatusCode, answer.Header.Get("x-rid"))
	io.Copy(os.Stdout, answer.Body)
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}
