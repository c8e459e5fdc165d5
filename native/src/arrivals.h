// Connections between accept4 and the HTTP server: one whose first request head is complete is handed on; until then it
// waits here, and costs no more than its socket.
#pragma once

#include "address_counts.h"
#include "calls.h"
#include "server.h"

#include <string>
#include <vector>

namespace tidegate {

// What an epoll event is for.
class Watched {
 public:
  virtual void onEvents(uint32_t events, Calls& call) = 0;

 protected:
  ~Watched() = default;
};

class Member;

struct Members {
  Member* first = nullptr;
  Member* last = nullptr;
};

// A connection that is in our hands: in a list of all of its kind, since most have a deadline.
class Member {
 public:
  virtual ~Member() = default;
  virtual void expire() = 0;
  // No more connections are accepted, and who waits has waited as long as is allowed: what is only waiting ends.
  virtual void drain() = 0;
  // Closes what it has, without a word.
  virtual void abandon() = 0;

  Members* of = nullptr;
  Member* before = nullptr;
  Member* after = nullptr;
  uint64_t deadlineMs = 0;  // of the loop's clock; 0: none
};

// Why connections were closed at the door; positions in `tallies` (src/state/counters.ts).
enum Tally { kSlowHead, kBadProxyHeader, kTooManyConnections, kTooManyOfAddress, kNoDescriptors };

struct ArrivalOptions {
  uint64_t headTimeoutMs = 0;    // from accept4 to the end of the first request's head
  bool tls = false;              // first bytes are a handshake, and only a PROXY header is ours to read
  bool proxyProtocol = false;    // who is trusted must begin with its header
  bool relays = false;           // requests of HTTP/1.0 go through relay(); else the server gets them as they are
  int32_t maxConnections = 0;    // of all workers together; 0: any number
  int32_t room = 0;              // most connections of this worker: its other descriptors are for upstreams and for itself
  int32_t highestFd = 0;         // a connection with this descriptor or a higher one takes what is kept for those
  int32_t maxPerAddress = 0;     // the same, of one client address that is not trusted
  uint64_t addressSeed = 0;
  napi_ref isTrusted = nullptr;  // (address) => boolean: whether it is a proxy's that vouches for others
  napi_ref tallies = nullptr;    // Float64Array
  napi_ref places = nullptr;     // Int32Array, the table of address_counts.h; nullptr: no limit on one address
  napi_ref onConnection = nullptr;
  napi_ref onException = nullptr;  // (error): thrown by one of these functions
  napi_ref counts = nullptr;
  size_t self = 0;
  void (*onClosed)(void*) = nullptr;  // the loop has let go of all of it
  void* onClosedData = nullptr;
};

// A connection and whose it is.
struct Visitor {
  int fd;
  Address address;
  bool announced = false;     // `address` is from a PROXY protocol header
  bool owesHeader = false;    // it must begin with one
  bool kept = false;          // it had an answer before
  bool watched = false;       // it is in the epoll set
  int32_t place = kNotCounted;  // where its address is counted
  std::string said = {};        // what was received of it and is not handed on yet
  size_t lines = 0;             // how many bytes of its head are lines that were looked at
};

// To JavaScript: `fd` is the visitor's own or, `relayed`, the server's end of a socket pair. False: the callback threw,
// and `fd` is closed unless it was adopted.
bool handOver(
    napi_env env, napi_ref onConnection, const Visitor& visitor, int fd, bool relayed, Calls& call, napi_value* result = nullptr);

// The app that serves an address's connections.
struct KnownApp {
  Address address;
  napi_ref app = nullptr;
  napi_ref adoptSocket = nullptr;
};

class Line;  // one end of a socket pair: relay() serves exchanges of HTTP/1.0 over it

class Arrivals {
 public:
  // `set` is an empty epoll set.
  static Arrivals* create(
      napi_env env, napi_async_context context, uv_loop_t* loop, Descriptor set, const ArrivalOptions& options);
  // Who waits here has `waitMs` left, and nobody comes back; exchanges of HTTP/1.0 go on to their end, which is then
  // the end of all of it.
  void stop(uint64_t waitMs);
  // Ends all of it now, and frees it.
  void close();

  // How many connections this worker has descriptors for.
  void makeRoom(int32_t connections) { options_.room = connections; }

  // Owns visitor.fd from here on.
  void arrive(int fd, const Address& address, Calls& call);
  // One that has had its answer and may send its next request.
  void back(const Visitor& visitor, Calls& call);
  bool stopping() const { return stopping_; }
  size_t exchanges() const { return exchanges_; }
  size_t waiting() const { return waiting_; }

  // For those in its hands.
  bool watch(int fd, Watched* watched, uint32_t events, bool already);
  void unwatch(int fd);
  void join(Member* member, uint64_t timeoutMs);
  void leave(Member* member);  // it is freed when the events of this wake are through
  void hold(int change);       // in this worker's count of connections
  void tally(Tally tally);
  void left(const Visitor& visitor);  // it is closed, or somebody else counts it
  void refuse(const Visitor& visitor, const char* answer, Tally reason);
  uint64_t nowMs() const { return uv_now(sweep_.loop); }
  void handOver(const Visitor& visitor, int fd, bool relayed, Calls& call);
  // Its app serves somebody else from now on; one that is not known: all apps.
  void forgetApp(const Address& address);

  static constexpr size_t kBufferBytes = 64 * 1024;
  char* const buffer = room_ + kPadding;
  std::string scratch;

  size_t exchanges_ = 0;          // relays under way
  size_t waiting_ = 0;            // those who have not said what they want
  size_t gathered_ = 0;           // bytes that they have said, in all
  std::vector<Line*> idleLines;  // and what they use, between two of them

 private:
  Arrivals(napi_env env, napi_async_context context, const ArrivalOptions& options)
      : env_(env), context_(context), options_(options) {}
  ~Arrivals() = default;
  friend class Arrival;

  enum Look { kGone, kWaits };
  void admit(Visitor visitor, Calls& call);
  void waitOrNot(Visitor& visitor, Calls& call);
  Look look(Visitor& visitor, Calls& call);
  void settle(Visitor& visitor, size_t bytes, Calls& call);
  bool isTrusted(const Visitor& visitor, Calls& call);
  bool isFull();
  bool lacksDescriptors(int fd);
  bool enter(Visitor& visitor);
  AddressCounts places();
  KnownApp& knownApp(const Address& address) { return known_[(addressKey(address, 0) >> 8) % kKnownApps]; }
  void remember(const Address& address, napi_value app);
  void forget(KnownApp& known);
  void* memory(napi_ref array, size_t* elements) const;
  void bury();
  static void onReadable(uv_poll_t* poll, int status, int events);
  static void onSweep(uv_timer_t* timer);

  static constexpr size_t kKnownApps = 256;
  KnownApp known_[kKnownApps];
  char room_[kPadding + kBufferBytes + kPadding];
  napi_env env_;
  napi_async_context context_;
  ArrivalOptions options_;
  Descriptor set_;
  uv_poll_t poll_;
  uv_timer_t sweep_;
  Members waiters_;  // with one timeout for all, so that who came first is due first
  Members relays_;   // and their lines, whose deadlines come and go
  std::vector<Member*> dead_;
  bool stopping_ = false;
  uint64_t patientUntilMs_ = 0;  // with those who wait, when it stops
  bool closing_ = false;
  int openHandles_ = 2;
};

}  // namespace tidegate
