# An application's own image, with bowout by the Debian package and its checksum. Copy it into the application's folder as Dockerfile.
#
# The checksum is the package's line in the release's SHA256SUMS. For arm64, take the package that has arm64 in its name.
FROM docker.io/library/debian:trixie-slim
ARG BOWOUT_URL=https://bowout.invalid/bowout/releases/download/v0.1.0/bowout_0.1.0-1_amd64.deb
ARG BOWOUT_SHA256
ADD ${BOWOUT_URL} /tmp/bowout.deb
RUN echo "${BOWOUT_SHA256}  /tmp/bowout.deb" | sha256sum -c - && dpkg -i /tmp/bowout.deb && rm /tmp/bowout.deb
COPY . /app
ENTRYPOINT ["/usr/bin/bowout", "--"]
CMD ["perl", "-e", "sleep"]
