// Asks tollgate for a proof at any time, and checks it with the program's own copy of the public key.
//
//	go run entitlement.go -product CODE -key 1=keys/1.pem -challenge http://127.0.0.1:8421
//
// Needs nothing but the standard library. Copy Challenge into your program and call it before you serve anybody: it
// returns an error unless AWS Marketplace itself signed a nonce that this program has just made up, for this product.
package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	tokenCharsMax  = 16 * 1024
	answerBytesMax = 64 * 1024
	answerTimeout  = 60 * time.Second
)

// Keys are public keys by their version.
type Keys map[string]*rsa.PublicKey

// Challenge returns an error unless the sidecar at url gets a nonce signed that this program has just made up.
// Nothing but the signature is believed: a false sidecar has none.
func Challenge(url, productCode string, keys Keys) error {
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return fmt.Errorf("no randomness: %w", err)
	}
	nonce := base64.RawURLEncoding.EncodeToString(random)
	token, err := ask(url+"/v1/entitlement/challenge", nonce)
	if err != nil {
		return err
	}
	signed, err := Verify(token, productCode, keys)
	if err != nil {
		return err
	}
	if signed != nonce {
		return errors.New("the signature answers another nonce")
	}
	return nil
}

// Verify returns the nonce that AWS Marketplace signed for this product, or an error where it did not.
func Verify(token, productCode string, keys Keys) (string, error) {
	parts := strings.Split(token, ".")
	if len(token) > tokenCharsMax || len(parts) != 3 {
		return "", errors.New("there is no signature")
	}
	header, err := object(parts[0])
	if err != nil {
		return "", err
	}
	claims, err := object(parts[1])
	if err != nil {
		return "", err
	}
	if header["alg"] != "PS256" {
		return "", errors.New("the signature's algorithm is not PS256")
	}
	version, err := claim(claims, "publicKeyVersion", "PublicKeyVersion")
	if err != nil {
		return "", err
	}
	key, known := keys[version]
	if !known {
		return "", fmt.Errorf("there is no public key of version %s", version)
	}
	signature, err := decode(parts[2])
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	options := &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
	if err := rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, options); err != nil {
		return "", fmt.Errorf("the signature does not verify: %w", err)
	}
	product, err := claim(claims, "productCode", "ProductCode")
	if err != nil {
		return "", err
	}
	if product != productCode {
		return "", errors.New("the signature is for another product")
	}
	return claim(claims, "nonce", "Nonce")
}

// ReadKey reads a public key from an SPKI PEM text.
func ReadKey(text []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("not a PEM of a public key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, isRSA := parsed.(*rsa.PublicKey)
	if !isRSA {
		return nil, errors.New("not an RSA key")
	}
	return key, nil
}

// ask returns the signature in the answer of the sidecar on this host, to which no proxy leads.
func ask(url, nonce string) (string, error) {
	body, err := json.Marshal(map[string]string{"nonce": nonce})
	if err != nil {
		return "", err
	}
	client := &http.Client{Timeout: answerTimeout, Transport: &http.Transport{Proxy: nil}}
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("the sidecar does not answer: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return "", fmt.Errorf("the sidecar's answer breaks off: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the sidecar answers %d: %s", response.StatusCode, bytes.TrimSpace(text))
	}
	var answer struct {
		Signature string `json:"signature"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return "", fmt.Errorf("the sidecar's answer is not JSON: %w", err)
	}
	return answer.Signature, nil
}

// claim returns the one value that the claim has, in whichever spelling.
func claim(claims map[string]any, spellings ...string) (string, error) {
	found, value := false, ""
	for _, spelling := range spellings {
		claimed, present := claims[spelling]
		if !present {
			continue
		}
		if text := fmt.Sprint(claimed); found && text != value {
			return "", fmt.Errorf("the signature has no single %s", spellings[0])
		}
		found, value = true, fmt.Sprint(claimed)
	}
	if !found {
		return "", fmt.Errorf("the signature has no single %s", spellings[0])
	}
	return value, nil
}

// object reads a part of a JWT. Numbers stay as they are written.
func object(part string) (map[string]any, error) {
	text, err := decode(part)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, errors.New("the signature is not a JWT")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("the signature is not a JWT")
	}
	return members, nil
}

func decode(part string) ([]byte, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errors.New("the signature is not a JWT")
	}
	return text, nil
}

func main() {
	product := flag.String("product", "", "the product code")
	url := flag.String("challenge", "http://127.0.0.1:8421", "the sidecar's metering endpoint")
	keys := Keys{}
	flag.Func("key", "VERSION=FILE of a public key", func(entry string) error {
		version, path, found := strings.Cut(entry, "=")
		if !found {
			return errors.New("not VERSION=FILE")
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		keys[version], err = ReadKey(text)
		return err
	})
	flag.Parse()
	if err := Challenge(*url, *product, keys); err != nil {
		fmt.Fprintln(os.Stderr, "not entitled:", err)
		os.Exit(1)
	}
	fmt.Println("entitled:", *product)
}
