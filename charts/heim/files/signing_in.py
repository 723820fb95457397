"""What `helm test` asks: does the proxy answer on the login host, in http and in https."""

# ruff: noqa: INP001 - a file of the chart, rendered into a pod
import http.client
import json
import os
import socket
import ssl
import sys

service, host = os.environ["SERVICE"], os.environ["LOGIN_HOST"]
ports = int(os.environ.get("HTTP_PORT", "80")), int(os.environ.get("HTTPS_PORT", "443"))

plain = http.client.HTTPConnection(service, ports[0], timeout=10)
plain.request("GET", "/", headers={"Host": host})
answer = plain.getresponse()
target = answer.getheader("Location") or ""
assert answer.status == 308, f"http answers {answer.status}, not a redirect"
assert target.startswith(f"https://{host}"), f"http leads to {target}"

# Until there is a certificate, the proxy shows one of its own making.
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with (
    socket.create_connection((service, ports[1]), timeout=10) as raw,
    context.wrap_socket(raw, server_hostname=host) as secure,
):
    secure.settimeout(10)
    ask = f"GET /.heim/jwks.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    secure.sendall(ask.encode())
    reply = http.client.HTTPResponse(secure)
    reply.begin()
    assert reply.status == 200, f"https answers {reply.status}"
    assert json.loads(reply.read())["keys"], "there is no key"
sys.stdout.write(f"{host} answers at {service}\n")
