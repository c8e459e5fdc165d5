// Connections between accept4 and the HTTP server (server.h). TCP_DEFER_ACCEPT brings their first bytes along, so most
// connections are received from, judged and handed to the server with those bytes at once: epoll need not tell the
// server, and the server need not receive. A connection that has to wait is watched in an epoll set of this file's own,
// edge-triggered: the set tells of it once per arrival of bytes, not once per turn.
//
//   accept4 ─► PROXY header, if it owes one ─► head ─┬─ complete ─┬─ HTTP/1.1 ─► server
//                    │ bad: closed                   │            └─ HTTP/1.0 ─► relay() ─► server, and back if kept
//                    │                               ├─ no request's beginning ─► server, which says so
//                    └──────── not there ────────────┴─► waits; 408 after headTimeoutMs
//
// Where the listener speaks TLS, the first bytes behind the PROXY header are the handshake's, and enough. They are
// looked at and left in the socket, as all first bytes are where the server takes none (takesReceived).
//
// The server keeps some kilobytes for each connection. One whose head is slow costs only its socket and a record here.
#include "arrivals.h"

#include "glance.h"
#include "proxy_protocol.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>

namespace tidegate {

namespace {

constexpr int32_t kNobody = -1;
constexpr int32_t kLeaving = 1 << 30;  // LEAVING of src/state/counters.ts: who leaves still has its connections
constexpr int kEventsPerWake = 64;
constexpr uint64_t kSweepMs = 250;
// Ending one that waits takes some 45 us, most of it the kernel's. Thousands that came together end together: others
// are served in between.
constexpr int kExpiriesPerTurn = 16;
constexpr uint64_t kNextTurnMs = 1;
// A longer head is the server's to refuse (TIDEGATE_MAX_HEADER_BYTES) or to wait for.
constexpr size_t kMostHeadBytes = 16 * 1024;

// Of those who wait, together: the number of connections alone would be no bound for memory.
constexpr size_t kGatheredOfAll = 64 * 1024 * 1024;

constexpr char kTooSlow[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
constexpr char kBadRequest[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
constexpr char kUnavailable[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

}  // namespace

// One that waits for the rest of its PROXY header or its head.
class Arrival final : public Member, public Watched {
 public:
  Arrival(Arrivals& arrivals, const Visitor& visitor) : arrivals_(arrivals), visitor_(visitor) { arrivals_.waiting_++; }
  ~Arrival() override {
    arrivals_.waiting_--;
    arrivals_.gathered_ -= gathered_;
  }

  // Counts what it has said. False: there is no room for that, and it has been refused.
  bool fits() {
    arrivals_.gathered_ += visitor_.said.size() - gathered_;
    gathered_ = visitor_.said.size();
    if (gathered_ == 0 || arrivals_.gathered_ <= kGatheredOfAll) return true;
    arrivals_.refuse(visitor_, kUnavailable, kTooManyConnections);
    return false;
  }

  void onEvents(uint32_t events, Calls& call) override {
    arrivals_.hold(-1);  // whoever takes it over counts it
    if (arrivals_.look(visitor_, call) == Arrivals::kWaits && fits()) {
      arrivals_.hold(1);
      if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
      end();
    } else arrivals_.leave(this);
  }

  void expire() override {
    char first;
    const bool silent = visitor_.said.empty() && recv(visitor_.fd, &first, 1, MSG_PEEK) <= 0;
    if (silent && visitor_.kept) return end();
    arrivals_.hold(-1);
    arrivals_.refuse(visitor_, silent || visitor_.owesHeader ? nullptr : kTooSlow, kSlowHead);
    arrivals_.leave(this);
  }

  void drain() override { end(); }
  void abandon() override { end(); }

 private:
  void end() {
    close(visitor_.fd);
    arrivals_.hold(-1);
    arrivals_.left(visitor_);
    arrivals_.leave(this);
  }

  Arrivals& arrivals_;
  Visitor visitor_;
  size_t gathered_ = 0;
};

Arrivals* Arrivals::create(
    napi_env env, napi_async_context context, uv_loop_t* loop, Descriptor set, const ArrivalOptions& options) {
  auto* arrivals = new Arrivals(env, context, options);
  arrivals->set_ = std::move(set);
  uv_poll_init(loop, &arrivals->poll_, arrivals->set_.get());  // fails only for what epoll cannot watch
  uv_timer_init(loop, &arrivals->sweep_);
  arrivals->poll_.data = arrivals->sweep_.data = arrivals;
  uv_poll_start(&arrivals->poll_, UV_READABLE, onReadable);
  return arrivals;
}

// With the next turn of the loop: who is being handed over this moment may be the one who calls.
void Arrivals::stop(uint64_t waitMs) {
  if (stopping_ || closing_) return;
  stopping_ = true;
  patientUntilMs_ = nowMs() + waitMs;
  uv_timer_start(&sweep_, onSweep, 0, kSweepMs);
}

void Arrivals::close() {
  if (closing_) return;
  closing_ = stopping_ = true;
  for (Members* members : {&waiters_, &relays_}) {
    while (members->first != nullptr) members->first->abandon();
  }
  const auto closed = [](uv_handle_t* handle) {
    auto* arrivals = static_cast<Arrivals*>(handle->data);
    if (--arrivals->openHandles_ > 0) return;
    arrivals->bury();
    arrivals->forgetApp(Address());
    const ArrivalOptions options = arrivals->options_;
    delete arrivals;
    options.onClosed(options.onClosedData);
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&sweep_), closed);
  set_ = Descriptor();
}

bool Arrivals::watch(int fd, Watched* watched, uint32_t events, bool already) {
  epoll_event event = {};
  event.events = events | EPOLLRDHUP | EPOLLET;
  event.data.ptr = watched;
  return epoll_ctl(set_.get(), already ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0;
}

// Only for descriptors that live on; the others leave the set when they are closed.
void Arrivals::unwatch(int fd) {
  epoll_event event = {};
  epoll_ctl(set_.get(), EPOLL_CTL_DEL, fd, &event);
}

void Arrivals::join(Member* member, uint64_t timeoutMs) {
  Members& members = timeoutMs == 0 ? relays_ : waiters_;
  member->of = &members;
  member->deadlineMs = timeoutMs == 0 ? 0 : nowMs() + timeoutMs;
  member->before = members.last;
  (members.last != nullptr ? members.last->after : members.first) = member;
  members.last = member;
  if (!uv_is_active(reinterpret_cast<uv_handle_t*>(&sweep_))) uv_timer_start(&sweep_, onSweep, kSweepMs, kSweepMs);
}

void Arrivals::leave(Member* member) {
  (member->before != nullptr ? member->before->after : member->of->first) = member->after;
  (member->after != nullptr ? member->after->before : member->of->last) = member->before;
  dead_.push_back(member);
}

void Arrivals::bury() {
  for (Member* member : dead_) delete member;
  dead_.clear();
}

// Looked up each time: whoever detaches the buffer leaves us with none, not with a dangling pointer.
void* Arrivals::memory(napi_ref array, size_t* elements) const {
  napi_value value;
  void* data = nullptr;
  *elements = 0;
  if (closing_ || array == nullptr) return nullptr;  // with the environment, and without JavaScript
  if (napi_get_reference_value(env_, array, &value) != napi_ok || value == nullptr) return nullptr;
  if (napi_get_typedarray_info(env_, value, nullptr, elements, &data, nullptr, nullptr) != napi_ok || data == nullptr) *elements = 0;
  return data;
}

void Arrivals::hold(int change) {
  size_t n;
  auto* counts = static_cast<int32_t*>(memory(options_.counts, &n));
  if (options_.self < n) __atomic_fetch_add(counts + options_.self, change, __ATOMIC_SEQ_CST);
}

void Arrivals::tally(Tally tally) {
  size_t n;
  auto* tallies = static_cast<double*>(memory(options_.tallies, &n));
  if (tally < n) tallies[tally] += 1;
}

AddressCounts Arrivals::places() {
  size_t n;
  auto* table = static_cast<int32_t*>(memory(options_.places, &n));
  return AddressCounts(table, n / kAddressBlockInts, options_.self);
}

// False: its address has as many connections as it may.
bool Arrivals::enter(Visitor& visitor) {
  size_t n;
  if (options_.maxPerAddress == 0 || memory(options_.places, &n) == nullptr || n < (options_.self + 1) * kAddressBlockInts) return true;
  visitor.place = places().enter(addressKey(visitor.address, options_.addressSeed), options_.maxPerAddress);
  if (visitor.place != kTooMany) return true;
  visitor.place = kNotCounted;
  return false;
}

void Arrivals::left(const Visitor& visitor) {
  size_t n;
  if (visitor.place >= 0 && memory(options_.places, &n) != nullptr && static_cast<size_t>(visitor.place) < n) places().leave(visitor.place);
}

// Of this worker alone, with this one. The kernel gives out the lowest descriptor that is free: a high one says how
// many are open.
bool Arrivals::lacksDescriptors(int fd) {
  size_t n;
  const auto* counts = static_cast<int32_t*>(memory(options_.counts, &n));
  if (options_.self >= n) return false;
  const int32_t open = __atomic_load_n(counts + options_.self, __ATOMIC_SEQ_CST);
  const int64_t own = open >= 0 ? open : open + kLeaving;
  for (;;) {
    const int64_t lines = static_cast<int64_t>(exchanges_ + idleLines.size());
    if (fd < options_.highestFd && own + 2 * lines <= options_.room) return false;
    if (idleLines.empty()) return true;
    dropIdleLine(*this);  // nobody needs it this moment; its two descriptors go, one at once
  }
}

// With this one, which is in our own count already. Two workers that take the last place at the same moment both see
// both, and neither keeps it.
bool Arrivals::isFull() {
  size_t n;
  const auto* counts = static_cast<int32_t*>(memory(options_.counts, &n));
  int64_t sum = 0;
  for (size_t i = 0; i < n; i++) {
    const int32_t open = __atomic_load_n(counts + i, __ATOMIC_SEQ_CST);
    sum += open >= 0 ? open : open < kNobody ? open + kLeaving : 0;
  }
  return sum > options_.maxConnections;
}

// Ends it, with a word to those that would understand it.
void Arrivals::refuse(const Visitor& visitor, const char* answer, Tally reason) {
  tally(reason);
  left(visitor);
  // What is not read would make a reset of the end, and the answer would be lost with it.
  const ssize_t n = recv(visitor.fd, buffer, kBufferBytes, 0);
  const char first = !visitor.said.empty() ? visitor.said[0] : n > 0 ? buffer[0] : 0;
  if (answer != nullptr && first > ' ') {  // not to TLS
    if (send(visitor.fd, answer, strlen(answer), MSG_NOSIGNAL) > 0) shutdown(visitor.fd, SHUT_WR);
  }
  ::close(visitor.fd);
}

bool handOver(
    napi_env env, napi_ref onConnection, const Visitor& visitor, int fd, bool relayed, Calls& call, napi_value* result) {
  char text[kAddressTextBytes];
  napi_value arguments[5];
  addressText(visitor.address, text);
  napi_create_int32(env, fd, &arguments[0]);
  napi_create_string_latin1(env, text, NAPI_AUTO_LENGTH, &arguments[1]);
  napi_get_boolean(env, relayed, &arguments[2]);
  napi_get_boolean(env, visitor.announced, &arguments[3]);
  // Who relays goes on counting.
  napi_create_int32(env, relayed ? kNotCounted : visitor.place, &arguments[4]);
  return call(onConnection, arguments, 5, fd, result);
}

// JavaScript says whose app it is once for each address; where connections are counted by address, each time.
void Arrivals::handOver(const Visitor& visitor, int fd, bool relayed, Calls& call) {
  napi_value result;
  if (relayed || visitor.place != kNotCounted) {
    tidegate::handOver(env_, options_.onConnection, visitor, fd, relayed, call);
    return;
  }
  const KnownApp& known = knownApp(visitor.address);
  if (known.app != nullptr && known.address == visitor.address) {
    napi_create_int32(env_, fd, &result);
    call(known.adoptSocket, &result, 1, fd, nullptr, known.app);
    return;
  }
  if (tidegate::handOver(env_, options_.onConnection, visitor, fd, false, call, &result)) remember(visitor.address, result);
}

void Arrivals::remember(const Address& address, napi_value app) {
  napi_valuetype type;
  napi_value adoptSocket;
  if (napi_typeof(env_, app, &type) != napi_ok || type != napi_object || closing_) return;
  if (napi_get_named_property(env_, app, "adoptSocket", &adoptSocket) != napi_ok) return;
  KnownApp& known = knownApp(address);
  forget(known);
  known.address = address;
  napi_create_reference(env_, app, 1, &known.app);
  napi_create_reference(env_, adoptSocket, 1, &known.adoptSocket);
}

void Arrivals::forget(KnownApp& known) {
  if (known.app == nullptr) return;
  napi_delete_reference(env_, known.app);
  napi_delete_reference(env_, known.adoptSocket);
  known.app = nullptr;
}

void Arrivals::forgetApp(const Address& address) {
  if (!address.known()) {
    for (KnownApp& known : known_) forget(known);
  } else if (knownApp(address).address == address) {
    forget(knownApp(address));
  }
}

bool Arrivals::isTrusted(const Visitor& visitor, Calls& call) {
  char text[kAddressTextBytes];
  napi_value argument, answer;
  addressText(visitor.address, text);
  napi_create_string_latin1(env_, text, NAPI_AUTO_LENGTH, &argument);
  bool trusted = false;
  if (call(options_.isTrusted, &argument, 1, -1, &answer)) napi_get_value_bool(env_, answer, &trusted);
  return trusted;
}

void Arrivals::arrive(int fd, const Address& address, Calls& call) {
  hold(1);  // until whoever takes it counts it
  admit({fd, address}, call);
  hold(-1);
}

void Arrivals::admit(Visitor visitor, Calls& call) {
  if (lacksDescriptors(visitor.fd)) return refuse(visitor, kUnavailable, kNoDescriptors);
  if (options_.maxConnections > 0 && isFull()) return refuse(visitor, kUnavailable, kTooManyConnections);
  if (options_.proxyProtocol || options_.maxPerAddress > 0) {
    const bool trusted = isTrusted(visitor, call);
    visitor.owesHeader = trusted && options_.proxyProtocol;
    if (!trusted && !enter(visitor)) return refuse(visitor, kUnavailable, kTooManyOfAddress);
  }
  waitOrNot(visitor, call);
}

void Arrivals::back(const Visitor& visitor, Calls& call) {
  Visitor again = visitor;
  again.kept = true;
  again.lines = 0;
  waitOrNot(again, call);
}

void Arrivals::waitOrNot(Visitor& visitor, Calls& call) {
  if (look(visitor, call) == kGone) return;
  const bool already = visitor.watched;
  visitor.watched = true;
  auto* arrival = new Arrival(*this, visitor);
  const bool fits = arrival->fits();
  if (!fits || !watch(visitor.fd, arrival, EPOLLIN, already)) {
    if (fits) {
      ::close(visitor.fd);
      left(visitor);
    }
    delete arrival;
    return;
  }
  hold(1);
  join(arrival, options_.headTimeoutMs);
}

// Decides if it can; kGone: the descriptor is somebody else's now, or closed.
Arrivals::Look Arrivals::look(Visitor& visitor, Calls& call) {
  const bool takes = !options_.tls && takesReceived();
  for (;;) {
    size_t n = visitor.said.size();
    memcpy(buffer, visitor.said.data(), n);
    if (n < kMostHeadBytes) {
      const ssize_t got = recv(visitor.fd, buffer + n, takes ? kBufferBytes - n : kMostHeadBytes, takes ? 0 : MSG_PEEK);
      if (got < 0 && errno == EINTR) continue;
      if (got == 0 || (got < 0 && errno != EAGAIN)) {
        ::close(visitor.fd);
        left(visitor);
        return kGone;
      }
      if (got < 0 && n == 0) return kWaits;
      if (got > 0) n += static_cast<size_t>(got);
    }
    const auto keep = [&] {
      if (takes) visitor.said.assign(buffer, n);
    };
    if (visitor.owesHeader) {
      const ProxyHeader header = parseProxyHeader(buffer, n);
      if (header.kind == ProxyHeader::kIncomplete) {
        keep();
        return kWaits;
      }
      if (header.kind == ProxyHeader::kNone || header.kind == ProxyHeader::kBad) {
        refuse(visitor, nullptr, kBadProxyHeader);
        return kGone;
      }
      if (takes) visitor.said.assign(buffer + header.bytes, n - header.bytes);
      else if (recv(visitor.fd, buffer, header.bytes, 0) != static_cast<ssize_t>(header.bytes)) continue;
      visitor.owesHeader = false;
      if (header.kind == ProxyHeader::kSource) {
        visitor.announced = true;
        visitor.address = header.source;
        if (!enter(visitor)) {
          refuse(visitor, kUnavailable, kTooManyOfAddress);
          return kGone;
        }
      }
      continue;
    }
    if (options_.tls) {
      settle(visitor, 0, call);
      return kGone;
    }
    // From others it is refused: the server would believe a version 2 header, and a version 1 line is no request
    // either.
    const ProxyHeader forged = parseProxyHeader(buffer, n);
    const bool maybeForged = forged.kind == ProxyHeader::kIncomplete && buffer[0] == '\r' && n < 16;
    if (!maybeForged && forged.kind != ProxyHeader::kNone && (buffer[0] == '\r' || forged.kind != ProxyHeader::kIncomplete)) {
      keep();
      // Version 1 is a bad request line to those who know nothing of it; version 2 is no text.
      refuse(visitor, kBadRequest, kBadProxyHeader);
      return kGone;
    }
    const Glance seen = glance(buffer, n, &visitor.lines);
    if (maybeForged || (seen.kind == Glance::kIncomplete && n < kMostHeadBytes)) {
      keep();
      return kWaits;
    }
    if (seen.kind != Glance::kHttp10 || !options_.relays) {
      settle(visitor, takes ? n : 0, call);
      return kGone;
    }
    if (!takes) n = recv(visitor.fd, buffer, seen.bytes, 0) > 0 ? seen.bytes : 0;  // all of it is there
    visitor.said.clear();
    relay(*this, visitor, seen.bytes, n, call);
    return kGone;
  }
}

// To the server, with the first `bytes` of the buffer.
void Arrivals::settle(Visitor& visitor, size_t bytes, Calls& call) {
  if (visitor.watched) unwatch(visitor.fd);
  awaitAdoption();
  handOver(visitor, visitor.fd, false, call);
  if (bytes > 0) deliverToAdopted(buffer, bytes);
}

void Arrivals::onReadable(uv_poll_t* poll, int, int) {
  auto* arrivals = static_cast<Arrivals*>(poll->data);
  napi_handle_scope scope;
  if (napi_open_handle_scope(arrivals->env_, &scope) != napi_ok) return;
  {
    epoll_event events[kEventsPerWake];
    Calls call(arrivals->env_, arrivals->context_, arrivals->options_.onException);
    const int n = epoll_wait(arrivals->set_.get(), events, kEventsPerWake, 0);
    for (int i = 0; i < n && !arrivals->closing_; i++) {
      auto* watched = static_cast<Watched*>(events[i].data.ptr);
      watched->onEvents(events[i].events, call);
    }
    arrivals->bury();
  }
  napi_close_handle_scope(arrivals->env_, scope);
}

void Arrivals::onSweep(uv_timer_t* timer) {
  auto* arrivals = static_cast<Arrivals*>(timer->data);
  napi_handle_scope scope;
  if (napi_open_handle_scope(arrivals->env_, &scope) != napi_ok) return;
  const uint64_t nowMs = arrivals->nowMs();
  const bool draining = arrivals->stopping_ && arrivals->patientUntilMs_ <= nowMs;
  int budget = draining ? INT_MAX : kExpiriesPerTurn;
  for (Members* members : {&arrivals->waiters_, &arrivals->relays_}) {
    for (Member *member = members->first, *next; member != nullptr && budget > 0; member = next) {
      next = member->after;
      if (draining) member->drain();
      else if (member->deadlineMs != 0 && member->deadlineMs <= nowMs) {
        member->expire();
        budget--;
      } else if (members == &arrivals->waiters_) break;  // they are in the order of their deadlines
    }
  }
  arrivals->bury();
  if (arrivals->waiters_.first == nullptr && arrivals->relays_.first == nullptr) {
    uv_timer_stop(timer);
    if (arrivals->stopping_) arrivals->close();
  } else if (budget == 0) {
    uv_timer_start(timer, onSweep, kNextTurnMs, kSweepMs);
  }
  napi_close_handle_scope(arrivals->env_, scope);
}

}  // namespace tidegate
