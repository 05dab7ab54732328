# syntax=docker/dockerfile:1
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/pgwaltz ./cmd/pgwaltz \
 && mkdir -p /out/state /out/tmp && chmod 0700 /out/state && chmod 1777 /out/tmp

# Nothing but the binary, the certificates of public authorities and a folder for the
# stream: no shell, no package manager, no root.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/tmp /tmp
COPY --from=build --chown=65532:65532 /out/state /var/lib/pgwaltz
COPY --from=build /out/pgwaltz /pgwaltz
USER 65532:65532
VOLUME /var/lib/pgwaltz
# A graceful stop drains what is in hand within shutdown_timeout (10s by default).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/pgwaltz"]
CMD ["run", "--config", "/etc/pgwaltz/pgwaltz.yaml"]
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/pgwaltz", "status", "--check", "--config", "/etc/pgwaltz/pgwaltz.yaml"]
