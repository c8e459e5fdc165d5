// An exchange of HTTP/1.0: its head goes to uWS as one of HTTP/1.1 (http10.h) through a socket pair, behind a PROXY header that says whose it
// is; the answer comes back that way. So it passes the phases that every exchange does, and HTTP/1.1 pays nothing for it.
//
//   client ◄──── client_ │ relay │ server_ ◄────socketpair────► uWS
//
// Neither direction reads while the other side has not taken what was read before. One exchange a pair: its end is the end of the pair, and a
// connection that is kept goes back to arrivals.cc, where its next request may be one of HTTP/1.1.
#include "relay.h"

#include "http10.h"
#include "proxy_protocol.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace tidegate {
namespace {

// How long a client may take none of an answer that uWS is done with; before that, uWS's own clock runs, of 10 s as well.
constexpr uint64_t kStalledMs = 10'000;

class Relay final : public Member {
 public:
  Relay(Arrivals& arrivals, const Visitor& visitor, int server, Http10Request&& request)
      : arrivals_(arrivals),
        visitor_(visitor),
        answer_(request.isHead, request.keepAlive),
        bodyLeft_(request.bodyBytes),
        client_(*this, visitor.fd),
        server_(*this, server) {
    arrivals_.exchanges_++;
  }
  ~Relay() override { arrivals_.exchanges_--; }

  bool watch() {
    const bool already = visitor_.watched;
    visitor_.watched = true;
    return arrivals_.watch(client_.fd, &client_, EPOLLIN, already) && arrivals_.watch(server_.fd, &server_, EPOLLIN, false);
  }

  void expire() override { cut(); }
  void drain() override {
    if (deadlineMs != 0 && deadlineMs <= arrivals_.nowMs()) cut();
  }
  void abandon() override { end(); }

 private:
  struct End final : public Watched {
    End(Relay& relay, int fd) : relay(relay), fd(fd) {}
    void onEvents(uint32_t events, Calls& call) override { relay.onEvents(*this, events, call); }
    Relay& relay;
    int fd;
    bool watchedForRoom = false;
    std::string unsent;  // and not read on until it is gone
  };

  void onEvents(const End& end, uint32_t events, Calls& call) {
    if (gone_) return;
    request();
    if (!gone_) answer(call);
    // A client that closes its end has left, as in HTTP/1.1 to uWS; not before the rest of its body has been read.
    if (gone_ || &end != &client_ || !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
    if (bodyLeft_ == 0 || (events & (EPOLLHUP | EPOLLERR))) this->end();
  }

  // Body of the request, client to uWS.
  void request() {
    while (flush(server_) && bodyLeft_ > 0) {
      const size_t most = bodyLeft_ < Arrivals::kBufferBytes ? static_cast<size_t>(bodyLeft_) : Arrivals::kBufferBytes;
      const ssize_t n = recv(client_.fd, arrivals_.buffer, most, 0);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (n <= 0) return end();
      bodyLeft_ -= static_cast<uint64_t>(n);
      write(server_, arrivals_.buffer, static_cast<size_t>(n));
    }
  }

  // uWS to client.
  void answer(Calls& call) {
    while (flush(client_)) {
      if (lost_) return end();
      if (answer_.complete(ended_)) return finish(call);
      if (ended_) return cut();
      const ssize_t n = recv(server_.fd, arrivals_.buffer, Arrivals::kBufferBytes, 0);
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        ended_ = true;
        continue;
      }
      // An answer to a request that is not through yet, or the last one before the worker leaves.
      if (bodyLeft_ > 0 || !server_.unsent.empty() || arrivals_.stopping()) answer_.last();
      arrivals_.scratch.clear();
      if (!answer_.feed(arrivals_.buffer, static_cast<size_t>(n), arrivals_.scratch)) return cut();
      write(client_, arrivals_.scratch.data(), arrivals_.scratch.size());
    }
  }

  // What does not fit is kept, and the end watched for room.
  void write(End& end, const char* data, size_t bytes) {
    if (bytes == 0) return;
    ssize_t n = send(end.fd, data, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
      failed(end);
      return;
    }
    if (n < 0) n = 0;
    if (static_cast<size_t>(n) == bytes) return;
    end.unsent.append(data + n, bytes - static_cast<size_t>(n));
    if (&end == &client_) deadlineMs = arrivals_.nowMs() + kStalledMs;
    if (end.watchedForRoom) return;
    end.watchedForRoom = true;
    arrivals_.watch(end.fd, &end, EPOLLIN | EPOLLOUT, true);
  }

  // True when nothing is left to be sent.
  bool flush(End& end) {
    while (!end.unsent.empty()) {
      const ssize_t n = send(end.fd, end.unsent.data(), end.unsent.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return false;
      if (n < 0) {
        failed(end);
        return true;
      }
      end.unsent.erase(0, static_cast<size_t>(n));
      if (&end == &client_) deadlineMs = end.unsent.empty() ? 0 : arrivals_.nowMs() + kStalledMs;
    }
    return true;
  }

  void failed(End& end) {
    end.unsent.clear();
    if (&end == &client_) {
      lost_ = true;
      return;
    }
    // uWS has closed, with its answer on the way: it wants no more of the body.
    bodyLeft_ = 0;
    answer_.last();
  }

  void finish(Calls& call) {
    if (!answer_.keeps() || bodyLeft_ > 0 || arrivals_.stopping()) {
      shutdown(client_.fd, SHUT_WR);
      return end();
    }
    close(server_.fd);
    gone_ = true;
    arrivals_.leave(this);
    arrivals_.back(visitor_, call);
  }

  // An answer that cannot be completed. Its end would look like one that is, where the end of the connection is what ends it.
  void cut() {
    if (answer_.begun()) {
      const linger reset = {1, 0};
      setsockopt(client_.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    end();
  }

  void end() {
    if (gone_) return;
    gone_ = true;
    close(client_.fd);
    close(server_.fd);
    arrivals_.left(visitor_);
    arrivals_.leave(this);
  }

  Arrivals& arrivals_;
  Visitor visitor_;
  Http10Answer answer_;
  uint64_t bodyLeft_;
  End client_;
  End server_;
  bool ended_ = false;  // uWS has closed its end
  bool lost_ = false;   // the client has
  bool gone_ = false;
};

}  // namespace

void relay(Arrivals& arrivals, const Visitor& visitor, size_t headBytes, Calls& call) {
  Http10Request request = http10Request(arrivals.buffer, headBytes);
  const std::string head = proxyHeader(visitor.address) + request.head;
  int pair[2];
  // All of it is there: it was looked at a moment ago.
  if (recv(visitor.fd, arrivals.buffer, headBytes, 0) != static_cast<ssize_t>(headBytes) ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    close(visitor.fd);
    arrivals.left(visitor);
    return;
  }
  auto* relay = new Relay(arrivals, visitor, pair[0], std::move(request));
  // A pair that nothing was written to yet takes a head whole.
  if (send(pair[0], head.data(), head.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(head.size()) || !relay->watch()) {
    close(pair[1]);
    close(pair[0]);
    close(visitor.fd);
    arrivals.left(visitor);
    delete relay;
    return;
  }
  arrivals.join(relay, 0);
  // If it throws it closes that end, and ours hears of it.
  arrivals.handOver(visitor, pair[1], true, call);
}

}  // namespace tidegate
