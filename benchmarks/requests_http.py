"""The two requests that the parser is measured with: one as a programmatic client sends it, one as a browser does."""

HEADERS_4 = (
    b"POST /inference HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: 0\r\n"
    b"User-Agent: python-httpx/0.28.1\r\n"
    b"\r\n"
)
HEADERS_20 = (
    b"POST /v1/models/resnet/inference?trace=1&lang=en HTTP/1.1\r\n"
    b"Host: models.example.org\r\n"
    b"Connection: keep-alive\r\n"
    b"Content-Length: 0\r\n"
    b"Cache-Control: max-age=0\r\n"
    b'sec-ch-ua: "Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Origin: https://www.example.org\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/124.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-site\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-User: ?1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Referer: https://www.example.org/demo/index.html\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.7\r\n"
    b"Cookie: session=7f3a9c2b5d8e41f6a0c3b2d1e4f59687; theme=dark; consent=necessary\r\n"
    b"\r\n"
)
REQUESTS = {"4 headers": HEADERS_4, "20 headers": HEADERS_20}
