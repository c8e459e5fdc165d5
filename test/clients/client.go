// Go's net/http, as `go run client.go URL PLAN`.
package main

import (
	"bytes"
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

var patterns = map[int][]byte{}

func pattern(size int) []byte {
	if known, found := patterns[size]; found {
		return known
	}
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(97 + i%23)
	}
	patterns[size] = out
	return out
}

func ask(client *http.Client, base string, parts []string) error {
	bodyBytes, _ := strconv.Atoi(parts[3])
	answerBytes, _ := strconv.Atoi(parts[4])
	method := http.MethodPost
	var body io.Reader
	switch parts[1] {
	case "none":
		method = http.MethodGet
	case "length":
		body = bytes.NewReader(pattern(bodyBytes))
	default:
		// Of a length that net/http does not know.
		body = io.MultiReader(bytes.NewReader(pattern(bodyBytes)))
	}
	request, err := http.NewRequest(method, base+parts[5], body)
	if err != nil {
		return err
	}
	request.Header.Set("x-request", parts[0])
	if parts[2] == "expect" {
		request.Header.Set("Expect", "100-continue")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(pattern(bodyBytes))
	switch {
	case response.StatusCode != 200:
		return fmt.Errorf("status %d", response.StatusCode)
	case response.Header.Get("x-request") != parts[0]:
		return fmt.Errorf("the answer to %s", response.Header.Get("x-request"))
	case response.Header.Get("x-received") != hex.EncodeToString(hash[:]):
		return fmt.Errorf("another body was received")
	case !bytes.Equal(answer, pattern(answerBytes)):
		return fmt.Errorf("another answer, of %d bytes", len(answer))
	}
	return nil
}

func main() {
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	plan := strings.Split(strings.TrimSpace(string(text)), "\n")
	// Longer than a request may take: who gets no 100 fails.
	transport := &http.Transport{MaxConnsPerHost: 1, ExpectContinueTimeout: time.Minute}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	for _, line := range plan {
		parts := strings.Split(line, " ")
		if err := ask(client, os.Args[1], parts); err != nil {
			fmt.Printf("%s: %v\n", parts[0], err)
		}
	}
	fmt.Printf("done %d\n", len(plan))
}
