// A relay of one TLS connection with hashicorp/yamux on it, for comparison: the mux that frp and many
// other Go tunnels use, with the window that frp gives it, and nothing else around it.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"os"
	"strconv"

	"github.com/hashicorp/yamux"
)

func settings(window string) *yamux.Config {
	config := yamux.DefaultConfig()
	size, err := strconv.ParseUint(window, 10, 32)
	check(err)
	config.MaxStreamWindowSize = uint32(size)
	config.LogOutput = io.Discard
	return config
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func half(to, from net.Conn, done chan<- struct{}) {
	io.Copy(to, from)
	if tcp, ok := to.(*net.TCPConn); ok {
		tcp.CloseWrite()
	} else {
		to.Close()
	}
	done <- struct{}{}
}

func join(a, b net.Conn) {
	done := make(chan struct{}, 2)
	go half(a, b, done)
	go half(b, a, done)
	<-done
	<-done
	a.Close()
	b.Close()
}

// relay server WINDOW LISTEN CERTIFICATE KEY TARGET
// relay client WINDOW LISTEN AUTHORITY NAME SERVER
func main() {
	role, config, listen := os.Args[1], settings(os.Args[2]), os.Args[3]
	if role == "server" {
		pair, err := tls.LoadX509KeyPair(os.Args[4], os.Args[5])
		check(err)
		secure := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		listener, err := tls.Listen("tcp", listen, secure)
		check(err)
		for {
			carrier, err := listener.Accept()
			check(err)
			session, err := yamux.Server(carrier, config)
			check(err)
			go serve(session, os.Args[6])
		}
	}
	pem, err := os.ReadFile(os.Args[4])
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	secure := &tls.Config{RootCAs: pool, ServerName: os.Args[5], MinVersion: tls.VersionTLS13}
	carrier, err := tls.Dial("tcp", os.Args[6], secure)
	check(err)
	session, err := yamux.Client(carrier, config)
	check(err)
	listener, err := net.Listen("tcp", listen)
	check(err)
	for {
		local, err := listener.Accept()
		check(err)
		go func() {
			stream, err := session.Open()
			check(err)
			join(local, stream)
		}()
	}
}

func serve(session *yamux.Session, target string) {
	for {
		stream, err := session.Accept()
		if err != nil {
			return
		}
		go func() {
			local, err := net.Dial("tcp", target)
			if err != nil {
				stream.Close()
				return
			}
			join(stream, local)
		}()
	}
}
