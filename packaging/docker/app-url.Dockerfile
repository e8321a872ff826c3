# An application's own image, with bowout by URL and checksum. Copy it into the application's folder as Dockerfile.
#
# The checksum is the program's line in the release's SHA256SUMS; a build with another program fails. For arm64, take the program and the line
# that have aarch64 in their name. BuildKit and podman 5 can check it as they fetch it: ADD --checksum=sha256:… --chmod=755 URL /usr/bin/bowout.
FROM docker.io/library/busybox:1.37
ARG BOWOUT_URL=https://bowout.invalid/bowout/releases/download/v0.1.0/bowout-0.1.0-x86_64-linux
ARG BOWOUT_SHA256
ADD ${BOWOUT_URL} /usr/bin/bowout
RUN echo "${BOWOUT_SHA256}  /usr/bin/bowout" | sha256sum -c - && chmod 755 /usr/bin/bowout
COPY . /app
ENTRYPOINT ["/usr/bin/bowout", "--"]
CMD ["httpd", "-f", "-p", "8080", "-h", "/app"]
