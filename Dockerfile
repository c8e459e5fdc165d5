# Debian 13 on both sides: the newest uWebSockets.js wants glibc 2.38 or later, and Node 24 has no older build of it to fall back on.
FROM node:24-trixie AS build
WORKDIR /src
# What the installation needs comes first, so that this layer outlives changes to src/.
COPY package.json package-lock.json LICENSE ./
COPY scripts/build-native.mjs scripts/prepare.mjs scripts/
COPY native/binding.gyp native/
COPY native/src native/src
# Not `npm ci`: the lock file names the platform packages of Linux on x64 alone, and ci refuses a lock that does not name all.
RUN npm install --no-audit --no-fund
# Without the addon workers would be threads; in an image that is a mistake to be seen now and not at run time.
RUN test -f native/build/Release/tidegate.node
COPY tsconfig.json ./
COPY native/index.ts native/
COPY src src
RUN npm run build && npm prune --omit=dev --no-audit --no-fund

FROM node:24-trixie-slim
WORKDIR /app
COPY --from=build /src/package.json /src/LICENSE ./
COPY --from=build /src/node_modules node_modules
COPY --from=build /src/native/build/Release/tidegate.node native/build/Release/
COPY --from=build /src/dist dist
COPY bin bin
# Limits and breakers live here: name a volume to keep them when the container is replaced. The rest of the root may be read-only.
RUN install -d -o node -g node -m 700 /var/lib/tidegate
VOLUME /var/lib/tidegate
ENV NODE_ENV=production \
    TIDEGATE_CONFIG=/etc/tidegate/tidegate.yaml \
    TIDEGATE_STATE=/var/lib/tidegate/tidegate.state
USER node
EXPOSE 8080
STOPSIGNAL SIGTERM
# slim has no curl. Ready means: every worker listens, and the gateway is not draining.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=2 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.TIDEGATE_ADMIN_PORT || 9901) + '/readyz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# The exec form: the gateway is process 1 and gets the signals itself.
ENTRYPOINT ["node", "bin/tidegate.js"]
CMD ["start"]
