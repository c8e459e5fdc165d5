// An exchange of HTTP/1.0: its head goes to uWS as one of HTTP/1.1 (http10.h) through a socket pair, behind a PROXY
// header that names its client; the response comes back the same way. So the exchange passes the phases that every
// exchange does, and HTTP/1.1 pays nothing for it.
//
// Works around: uWebSockets.js (20.51.4 and 20.69.0) answers 505 to HTTP/1.0. The relay relies on its reading of a
// PROXY header before a head: 20.51.4 reads it before each request, 20.69.0 only before a connection's first.
// Without it, a request of HTTP/1.0 gets 505.
//
//   client ◄──── client_ │ Relay │ Line ◄────socketpair────► uWS
//
// Neither direction reads while the other side has not taken what was read before. A connection that is kept goes back
// to arrivals.cc, where its next request may be one of HTTP/1.1. A line serves one exchange of its client's address
// after the other, as long as there is no doubt that one is over; uWS ends idle ones after 10 s. New ones for each
// would cost more than all the rest of this.
#include "../arrivals.h"
#include "../glance.h"
#include "../proxy_protocol.h"
#include "http10.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace tidegate {
namespace {

// How long a client may take none of an answer that uWS is done with; before that, uWS's own clock runs, of 10 s as
// well.
constexpr uint64_t kStalledMs = 10'000;

constexpr size_t kMostIdleLines = 256;

class Relay;
}  // namespace

// One end of a socket pair whose other end is uWS's.
class Line final : public Member, public Watched {
 public:
  Line(Arrivals& arrivals, int fd, const Address& address) : arrivals(arrivals), fd(fd), address(address) {}
  void onEvents(uint32_t events, Calls& call) override;
  void expire() override {}
  void drain() override {
    if (relay == nullptr) abandon();
  }
  void abandon() override;
  void release();

  Arrivals& arrivals;
  const int fd;
  // 20.69.0 believes only the first PROXY header of a connection, so a line serves one address.
  const Address address;
  Relay* relay = nullptr;  // whom it serves; null: nobody
  bool watchedForRoom = false;
  bool gone = false;
};

namespace {

class Relay final : public Member {
 public:
  // `early`: what was received behind the head.
  Relay(Arrivals& arrivals, const Visitor& visitor, Line* line, const Http10Request& request, std::string early)
      : arrivals_(arrivals),
        visitor_(visitor),
        answer_(request.isHead, request.keepAlive),
        bodyLeft_(request.bodyBytes),
        sound_(request.sound),
        line_(line),
        early_(std::move(early)),
        client_(*this, visitor.fd) {
    arrivals_.exchanges_++;
  }
  ~Relay() override { arrivals_.exchanges_--; }

  bool watch() {
    const bool already = visitor_.watched;
    visitor_.watched = true;
    return arrivals_.watch(client_.fd, &client_, EPOLLIN, already);
  }

  void onLine(Calls& call) {
    request();
    if (!gone_) answer(call);
  }

  void expire() override { cut(); }
  void drain() override {
    if (deadlineMs != 0 && deadlineMs <= arrivals_.nowMs()) cut();
  }
  void abandon() override { end(); }

 private:
  struct Client final : public Watched {
    Client(Relay& relay, int fd) : relay(relay), fd(fd) {}
    void onEvents(uint32_t events, Calls& call) override { relay.onClient(events, call); }
    Relay& relay;
    int fd;
    bool watchedForRoom = false;
  };

  void onClient(uint32_t events, Calls& call) {
    if (gone_) return;
    hasMore_ = hasMore_ || (events & EPOLLIN);
    onLine(call);
    // A client that closes its end has left, as in HTTP/1.1 to uWS; not before the rest of its body has been read.
    if (gone_ || !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
    if (bodyLeft_ == 0 || (events & (EPOLLHUP | EPOLLERR))) end();
  }

  // Body of the request, client to uWS.
  void request() {
    while (flushToServer() && bodyLeft_ > 0) {
      const size_t most = bodyLeft_ < Arrivals::kBufferBytes ? static_cast<size_t>(bodyLeft_) : Arrivals::kBufferBytes;
      const ssize_t n = early_.empty() ? recv(client_.fd, arrivals_.buffer, most, 0) : takeEarly(most);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (n <= 0) return end();
      bodyLeft_ -= static_cast<uint64_t>(n);
      if (!write(line_->fd, toServer_, line_->watchedForRoom, line_, arrivals_.buffer, static_cast<size_t>(n))) deaf();
    }
  }

  ssize_t takeEarly(size_t most) {
    const size_t n = early_.copy(arrivals_.buffer, most);
    early_.erase(0, n);
    return static_cast<ssize_t>(n);
  }

  // uWS to client.
  void answer(Calls& call) {
    while (flushToClient()) {
      if (answer_.complete(ended_)) return finish(call);
      if (ended_) return cut();
      const ssize_t n = recv(line_->fd, arrivals_.buffer, Arrivals::kBufferBytes, 0);
      if (n < 0 && errno == EAGAIN) return;
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        ended_ = true;
        continue;
      }
      // An answer to a request that is not through yet, or the last one before the worker leaves.
      if (bodyLeft_ > 0 || !toServer_.empty() || arrivals_.stopping()) answer_.last();
      arrivals_.scratch.clear();
      if (!answer_.feed(arrivals_.buffer, static_cast<size_t>(n), arrivals_.scratch)) return cut();
      if (!write(client_.fd, toClient_, client_.watchedForRoom, &client_, arrivals_.scratch.data(), arrivals_.scratch.size())) return end();
      if (!toClient_.empty()) deadlineMs = arrivals_.nowMs() + kStalledMs;
    }
  }

  // Sends; what does not fit is kept, and the descriptor watched for room. False: the other side is gone.
  bool write(int fd, std::string& unsent, bool& watchedForRoom, Watched* watched, const char* data, size_t bytes) {
    if (bytes == 0) return true;
    ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n < 0) n = 0;
    if (static_cast<size_t>(n) == bytes) return true;
    unsent.append(data + n, bytes - static_cast<size_t>(n));
    if (!watchedForRoom) arrivals_.watch(fd, watched, EPOLLIN | EPOLLOUT, true);
    watchedForRoom = true;
    return true;
  }

  // 1: nothing is left; 0: there is no room; -1: the other side is gone.
  int flush(int fd, std::string& unsent) {
    while (!unsent.empty()) {
      const ssize_t n = send(fd, unsent.data(), unsent.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN ? 0 : -1;
      unsent.erase(0, static_cast<size_t>(n));
    }
    return 1;
  }

  bool flushToServer() {
    const int sent = flush(line_->fd, toServer_);
    if (sent < 0) deaf();
    return sent != 0;
  }

  bool flushToClient() {
    if (toClient_.empty()) return true;
    const size_t before = toClient_.size();
    const int sent = flush(client_.fd, toClient_);
    if (sent < 0) {
      end();
      return false;
    }
    if (toClient_.size() < before) deadlineMs = sent == 1 ? 0 : arrivals_.nowMs() + kStalledMs;
    return sent == 1;
  }

  // uWS has closed, with its answer on the way: it wants no more of the body.
  void deaf() {
    toServer_.clear();
    bodyLeft_ = 0;
    sound_ = false;
    answer_.last();
  }

  void finish(Calls& call) {
    if (!answer_.keeps() || bodyLeft_ > 0 || arrivals_.stopping()) return end();
    leave();
    visitor_.said = std::move(early_);
    arrivals_.back(visitor_, call);
  }

  // An answer that cannot be completed. Its end would look like one that is, where the end of the connection is what
  // ends it.
  void cut() {
    if (answer_.begun()) {
      const linger reset = {1, 0};
      setsockopt(client_.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    end();
  }

  void end() {
    if (gone_) return;
    // Unread, it would make a reset of the end, and the rest of the answer would be lost with it: old clients send a
    // CRLF behind a body.
    if (hasMore_) (void)!recv(client_.fd, arrivals_.buffer, Arrivals::kBufferBytes, 0);
    close(client_.fd);
    arrivals_.left(visitor_);
    leave();
  }

  void leave() {
    gone_ = true;
    const bool over = sound_ && !ended_ && bodyLeft_ == 0 && toServer_.empty() && answer_.complete(false) && !answer_.ends();
    line_->relay = nullptr;
    if (over) line_->release();
    else line_->abandon();
    arrivals_.hold(-1);
    arrivals_.leave(this);
  }

  Arrivals& arrivals_;
  Visitor visitor_;
  Http10Answer answer_;
  uint64_t bodyLeft_;
  bool sound_;
  Line* line_;
  std::string early_;  // the beginning of the body, and maybe of the next request
  Client client_;
  std::string toServer_, toClient_;  // not sent yet; nothing more is read for that side until it is
  bool hasMore_ = false;             // the client has sent something after its head
  bool ended_ = false;               // uWS has closed its end
  bool gone_ = false;
};

}  // namespace

void Line::onEvents(uint32_t, Calls& call) {
  if (gone) return;
  if (relay != nullptr) return relay->onLine(call);
  // uWS has ended it, or speaks out of turn. Room for more is told of as well, and EPOLLOUT alone is no reason.
  char byte;
  if (recv(fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN) abandon();
}

void Line::abandon() {
  if (gone) return;
  gone = true;
  close(fd);
  auto& idle = arrivals.idleLines;
  const auto found = std::find(idle.begin(), idle.end(), this);
  if (found != idle.end()) idle.erase(found);
  arrivals.leave(this);
}

// Who has just been here is more likely to come again than who was here first.
void Line::release() {
  if (arrivals.stopping()) return abandon();
  auto& idle = arrivals.idleLines;
  if (idle.size() >= kMostIdleLines) idle.front()->abandon();
  idle.push_back(this);
}

namespace {

// A line with `head` on its way to uWS; null: there are no descriptors left.
Line* sendOff(Arrivals& arrivals, const Visitor& visitor, const std::string& head, Calls& call) {
  // uWS runs in this thread: one that it has ended refuses at once.
  auto& idle = arrivals.idleLines;
  for (size_t i = idle.size(); i-- > 0;) {
    Line* line = idle[i];
    if (!(line->address == visitor.address)) continue;
    if (send(line->fd, head.data(), head.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(head.size())) {
      idle.erase(idle.begin() + static_cast<ptrdiff_t>(i));
      return line;
    }
    line->abandon();
  }
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) return nullptr;
  auto* line = new Line(arrivals, pair[0], visitor.address);
  arrivals.join(line, 0);
  // A pair that nothing was written to yet takes a head whole.
  if (!arrivals.watch(pair[0], line, EPOLLIN, false) ||
      send(pair[0], head.data(), head.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(head.size())) {
    close(pair[1]);
    line->abandon();
    return nullptr;
  }
  arrivals.handOver(visitor, pair[1], true, call);  // if it throws, that end is closed, and ours hears of it
  return line->gone ? nullptr : line;
}

}  // namespace

void relay(Arrivals& arrivals, const Visitor& visitor, size_t headBytes, size_t bytes, Calls& call) {
  const Http10Request request = http10Request(arrivals.buffer, headBytes);
  std::string early(arrivals.buffer + headBytes, bytes < headBytes ? 0 : bytes - headBytes);
  Line* line = bytes < headBytes ? nullptr : sendOff(arrivals, visitor, proxyHeader(visitor.address) + request.head, call);
  if (line == nullptr) {
    if (bytes >= headBytes) arrivals.tally(kNoDescriptors);
    close(visitor.fd);
    arrivals.left(visitor);
    return;
  }
  auto* relay = new Relay(arrivals, visitor, line, request, std::move(early));
  line->relay = relay;
  arrivals.join(relay, 0);
  arrivals.hold(1);
  if (!relay->watch()) relay->abandon();
  else if (bytes > headBytes) relay->onLine(call);  // of what is here already no event tells
}

void dropIdleLine(Arrivals& arrivals) { arrivals.idleLines.front()->abandon(); }

}  // namespace tidegate
