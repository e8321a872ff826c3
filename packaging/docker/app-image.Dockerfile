# An application's own image, with bowout from the image of a release. Copy it into the application's folder as Dockerfile.
FROM docker.io/library/busybox:1.37
COPY --from=bowout.invalid/bowout:0.1.0 /bowout /usr/bin/bowout
COPY . /app
ENTRYPOINT ["/usr/bin/bowout", "--"]
CMD ["httpd", "-f", "-p", "8080", "-h", "/app"]
