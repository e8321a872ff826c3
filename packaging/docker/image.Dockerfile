# The image that a release has: bowout, and no other file. For `COPY --from=`, as app-image.Dockerfile does it.
#
#   docker buildx build -f packaging/docker/image.Dockerfile --platform linux/amd64,linux/arm64 FOLDER
#
# FOLDER has the release's programs under the names bowout-amd64 and bowout-arm64; .github/workflows/image.yml puts them there. TARGETARCH is
# set by the builder. Nothing is executed, so that no machine is emulated.
FROM scratch
ARG TARGETARCH
COPY bowout-${TARGETARCH} /bowout
# Not root: this image itself can only run `bowout --version` and `bowout --explain`.
USER 65534:65534
ENTRYPOINT ["/bowout"]
