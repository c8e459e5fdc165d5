// The gate: every byte of a connection passes it before uWebSockets.js' parser sees it, decrypted where there is TLS. It reads no
// request: it finds where heads and bodies end, refuses what that parser takes or waits on for ever, and hands on the rest unchanged.
//
// What the parser of 20.51 does with framing in doubt (test/e2e/framing.test.ts asks for all of it):
//   chunk sizes      takes `g`, `:` and `;` for digits, blanks and controls for an end, LF for CRLF, any two bytes for a chunk's CRLF
//   extensions       `5;a` is a chunk of 0x5ba bytes
//   trailers         the bytes after `0 CRLF` but two are the next request: a way to smuggle one past a proxy in front
//   empty names      end the list of fields: a Content-Length after one is not seen, its body is the next request
//   bare CR, no version, an empty line before the request:  waits for more until the connection idles out
//   targets that are no path are answered 505, as if it were for their version
//   bytes over 127 at either end of a value are taken for blanks and cut off, so that `chunked\xa0` is chunked
//
//             ┌─ head ──► as it is, up to its CRLFCRLF ──► handler ──► expectBody(length | chunked)
//   on_data ──┼─ body ──► as it is, as many bytes as were declared
//             └─ chunks ► written anew: `size CRLF data CRLF`, without extensions and trailers. The last one goes in when all is well
//
// Stands between uSockets and uWebSockets: a socket context's on_data and on_close are exchanged for ours by uSockets' own functions,
// which the binary exports. Those that were there before are found by looking which word of the context changes.
#include "addon.h"
#include "head_marks.h"

#include <dlfcn.h>
#include <link.h>
#include <strings.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <unordered_map>

namespace tidegate {
namespace {

struct us_socket_t;
struct us_socket_context_t;
using OnData = us_socket_t* (*)(us_socket_t*, char*, int);
using OnClose = us_socket_t* (*)(us_socket_t*, int, void*);

struct USockets {
  void (*onData)(int, us_socket_context_t*, OnData) = nullptr;
  void (*onClose)(int, us_socket_context_t*, OnClose) = nullptr;
  int (*isClosed)(int, us_socket_t*) = nullptr;
  int (*isShutDown)(int, us_socket_t*) = nullptr;
  int (*write)(int, us_socket_t*, const char*, int, int) = nullptr;
  void (*shutdown)(int, us_socket_t*) = nullptr;
  us_socket_t* (*close)(int, us_socket_t*, int, void*) = nullptr;
  bool complete() const { return onData && onClose && isClosed && isShutDown && write && shutdown && close; }
};

constexpr size_t kExtensionBytes = 8192;  // that no data has paid for
constexpr size_t kTrailerBytes = 16384;
constexpr uint64_t kMostChunkBytes = 1ull << 53;
// uWebSockets marks the end of what it was given with two bytes behind it and looks up to 32 further.
constexpr size_t kPadding = 32;
// uWebSockets takes no more than 100 fields.
constexpr size_t kMarks = kHeadMarks + 100 * kFieldMarks;

// Where the next byte of a connection lies.
enum class At : uint8_t {
  kAnnounced,                              // a PROXY header before the head, where relay.cc is the client
  kBefore, kBeforeLf,                      // empty lines before a request (RFC 9112, 2.2): left out
  kMethod, kTargetStart, kAbsolute, kTarget, kLine, kLf, kLineStart, kEndLf,  // a head
  kBody,                                   // of declared length
  kSize, kDigits, kBlanks, kExtension, kSizeLf, kData, kDataCr, kDataLf,  // RFC 9112, 7.1
  kTrailer, kTrailerName, kTrailerValue, kTrailerLf, kLastLf,
};

struct Flow {
  At at = At::kBefore;
  char tail[9] = {'-', '-', '-', '-', '-', '-', '-', '-', '-'};  // the end of what has come of target and version
  bool blank = false;          // there was one before that
  std::string absolute;        // scheme and authority of a target in absolute-form, until they are handed on as a field
  char line[20] = {};          // the beginning of the line that a part of a head ended in
  uint8_t lineLength = 0;
  bool first = true;           // no chunk has been handed on yet
  uint64_t bytes = 0;          // of the body or the chunk, still to come
  size_t announcedBytes = 0;   // of a PROXY header, in all
  size_t extensionBytes = 0;
  size_t trailerBytes = 0;
  napi_ref exchange = nullptr;  // of a chunked body
};

struct Gate {
  napi_env env = nullptr;
  napi_ref onBadBody = nullptr;
  napi_async_context context = nullptr;
  USockets us;
  OnData onData[2] = {};    // uWebSockets' own, by TLS or not
  OnClose onClose[2] = {};
  std::unordered_map<us_socket_t*, Flow> flows;  // connections that are within a head or a body
  FieldNames names;
  int32_t* marks = nullptr;                      // kMarks of them, in JavaScript's hands as well
  napi_ref marksBuffer = nullptr;
  us_socket_t* current = nullptr;                // whose head is being handed on
  const char* head = nullptr;                    // that head, where it came in one piece
  const char* headEnd = nullptr;
  Flow next;                                     // what follows that head
};

// uSockets' handlers get no pointer of ours. An environment has one gate, a thread one environment.
thread_local Gate* gate = nullptr;

constexpr char kRefusal[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

bool isControl(unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; }

bool isToken(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

int hexDigit(unsigned char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// kInsert: what is before *p is handed on, then the text.
enum class Head { kIncomplete, kComplete, kBad, kInsert };

struct Insertion {
  char* after;
  std::string text;
};

constexpr const char* kSchemes[2] = {"http://", "https://"};
constexpr size_t kAuthorityBytes = 262;  // a name of 255, a colon, a port

// Whether a byte is below `least`. Without a branch, so that the compiler looks at many at once.
bool hasBelow(const char* from, const char* to, unsigned char least) {
  bool found = false;
  for (; from < to; from++) found |= static_cast<unsigned char>(*from) < least;
  return found;
}

// Keeps the last bytes of target and version, however they are split, and looks at those that these push out.
void keepTail(Flow& flow, const char* from, const char* to) {
  const size_t length = static_cast<size_t>(to - from);
  constexpr size_t kKept = sizeof flow.tail;
  flow.blank |= hasBelow(flow.tail, flow.tail + (length < kKept ? length : kKept), '!');
  if (length > kKept) flow.blank |= hasBelow(from, to - kKept, '!');
  if (length >= kKept) {
    memcpy(flow.tail, to - kKept, kKept);
    return;
  }
  memmove(flow.tail, flow.tail + length, kKept - length);
  memcpy(flow.tail + kKept - length, from, length);
}

// Moves *p over the head; *start is where what is handed on begins.
Head passHead(Flow& flow, int tls, bool relayed, char** p, char** start, char* end, Insertion* insertion) {
  char* target = *p;  // where that begins, in this part
  while (*p < end) {
    const char c = **p;
    switch (flow.at) {
      case At::kAnnounced:
        // Version 2, with fewer than 256 bytes behind the 16 of which the last says how many.
        if (++flow.bytes == 16) flow.announcedBytes = 16 + static_cast<unsigned char>(c);
        if (flow.bytes < 16 || flow.bytes < flow.announcedBytes) break;
        ++*p;
        flow.bytes = 0;
        flow.at = At::kMethod;
        *insertion = {*p, ""};
        return Head::kInsert;
      case At::kBefore:
        if (c == '\r' && relayed) {
          *start = *p;
          flow.at = At::kAnnounced;
          continue;
        }
        if (c == '\r') {
          flow.at = At::kBeforeLf;
          break;
        }
        *start = *p;
        flow.at = At::kMethod;
        continue;
      case At::kBeforeLf:
        if (c != '\n') return Head::kBad;
        flow.at = At::kBefore;
        break;
      case At::kMethod:
        if (c == ' ') flow.at = At::kTargetStart;
        else if (c < '!' || c > '~') return Head::kBad;
        break;
      case At::kTargetStart:
        // `*` and an authority alone are none of a gateway's (RFC 9112, 3.2).
        target = *p;
        flow.at = c == '/' ? At::kTarget : At::kAbsolute;
        continue;
      case At::kAbsolute: {
        // RFC 9112, 3.2.2. uWebSockets gets the path alone, and the authority in a field that nobody else can send.
        const size_t schemeLength = strlen(kSchemes[tls]);
        const size_t length = flow.absolute.size();
        if (length < schemeLength) {
          if ((c | 0x20) != (kSchemes[tls][length] | 0x20)) return Head::kBad;
        } else if (c == '/' || c == '?' || c == ' ') {
          if (length == schemeLength) return Head::kBad;
          flow.at = At::kTarget;
          *insertion = {target, c == '/' ? "" : "/"};
          return Head::kInsert;
        } else if (c < '!' || c > '~' || c == '@' || length == schemeLength + kAuthorityBytes) {
          return Head::kBad;
        }
        flow.absolute += c;
        break;
      }
      case At::kTarget:
      case At::kLine: {
        char* cr = static_cast<char*>(memchr(*p, '\r', static_cast<size_t>(end - *p)));
        char* to = cr == nullptr ? end : cr;
        if (flow.at == At::kTarget) {
          if (hasBelow(*p, to, ' ')) return Head::kBad;
          keepTail(flow, *p, to);
        }
        *p = to;
        if (cr == nullptr) return Head::kIncomplete;
        if (flow.at == At::kTarget && (flow.blank || memcmp(flow.tail, " HTTP/", 6) != 0)) return Head::kBad;
        flow.at = At::kLf;
        break;
      }
      case At::kLf:
        if (c != '\n') return Head::kBad;
        flow.at = At::kLineStart;
        if (flow.absolute.empty()) break;
        ++*p;
        *insertion = {*p, "Tidegate-Target:\x7f" + flow.absolute.substr(strlen(kSchemes[tls])) + "\r\n"};
        flow.absolute.clear();
        flow.lineLength = 0;
        return Head::kInsert;
      case At::kLineStart:
        if (c == ':') return Head::kBad;
        flow.at = c == '\r' ? At::kEndLf : At::kLine;
        break;
      default:
        if (c != '\n') return Head::kBad;
        ++*p;
        return Head::kComplete;
    }
    ++*p;
  }
  if (flow.at == At::kBefore || flow.at == At::kBeforeLf) *start = end;
  insertion->after = target;
  return Head::kIncomplete;
}

bool isWide(const char* from, const char* to) {
  unsigned char all = 0;
  for (; from < to; from++) all |= static_cast<unsigned char>(*from);
  return all >= 0x80;
}

// The line that [from, to) ends in may go on in the next part.
void keepLine(Flow& flow, const char* from, const char* to) {
  const auto* lf = static_cast<const char*>(memrchr(from, '\n', static_cast<size_t>(to - from)));
  if (lf != nullptr) {
    flow.lineLength = 0;
    from = lf + 1;
  }
  while (from < to && flow.lineLength < sizeof flow.line) flow.line[flow.lineLength++] = *from++;
}

// Whether a field that decides where the request goes or ends has bytes over 127 in this part of the head.
bool hasWideFraming(Flow flow, const char* from, const char* to) {
  while (from < to) {
    const auto* lf = static_cast<const char*>(memchr(from, '\n', static_cast<size_t>(to - from)));
    const char* next = lf == nullptr ? to : lf + 1;
    for (const char* c = from; c < next && flow.lineLength < sizeof flow.line;) flow.line[flow.lineLength++] = *c++;
    for (const char* name : {"host:", "content-length:", "transfer-encoding:"}) {
      const size_t length = strlen(name);
      if (flow.lineLength >= length && strncasecmp(flow.line, name, length) == 0 && isWide(from, next)) return true;
    }
    flow.lineLength = 0;
    from = next;
  }
  return false;
}

// What is behind the part handed on lies in the same buffer, where uWebSockets sets its marks.
bool feed(Gate& g, int tls, us_socket_t* s, char* data, size_t length) {
  char behind[2];
  memcpy(behind, data + length, sizeof behind);
  g.onData[tls](s, data, static_cast<int>(length));
  memcpy(data + length, behind, sizeof behind);
  return !g.us.isClosed(tls, s) && !g.us.isShutDown(tls, s);
}

bool feedText(Gate& g, int tls, us_socket_t* s, const char* text, int length) {
  char padded[kAuthorityBytes + 32 + 2 * kPadding];
  memcpy(padded + kPadding, text, static_cast<size_t>(length));
  return feed(g, tls, s, padded + kPadding, static_cast<size_t>(length));
}

enum class Chunks { kMore, kDone, kBad, kClosed };

Chunks passChunks(Gate& g, int tls, us_socket_t* s, Flow& flow, char** p, char* end) {
  while (*p < end) {
    const unsigned char c = static_cast<unsigned char>(**p);
    switch (flow.at) {
      case At::kSize:
        if (hexDigit(c) < 0) return Chunks::kBad;
        flow.bytes = 0;
        flow.at = At::kDigits;
        continue;
      case At::kDigits: {
        const int digit = hexDigit(c);
        if (digit >= 0) {
          // Zeros in front are as good as an extension.
          if (flow.bytes == 0 && digit == 0 && ++flow.extensionBytes > kExtensionBytes) return Chunks::kBad;
          flow.bytes = flow.bytes * 16 + static_cast<uint64_t>(digit);
          if (flow.bytes > kMostChunkBytes) return Chunks::kBad;
          break;
        }
        if (c == '\r') flow.at = At::kSizeLf;
        else if (c == ';') flow.at = At::kExtension;
        else if (c == ' ' || c == '\t') flow.at = At::kBlanks;
        else return Chunks::kBad;
        break;
      }
      case At::kBlanks:
        if (c == ';') flow.at = At::kExtension;
        else if ((c != ' ' && c != '\t') || ++flow.extensionBytes > kExtensionBytes) return Chunks::kBad;
        break;
      case At::kExtension:
        if (c == '\r') flow.at = At::kSizeLf;
        else if (isControl(c) || ++flow.extensionBytes > kExtensionBytes) return Chunks::kBad;
        break;
      case At::kSizeLf: {
        if (c != '\n') return Chunks::kBad;
        ++*p;
        if (flow.bytes == 0) {
          flow.at = At::kTrailer;
          continue;
        }
        char line[32];
        const int length =
            snprintf(line, sizeof line, "%s%llx\r\n", flow.first ? "" : "\r\n", static_cast<unsigned long long>(flow.bytes));
        flow.first = false;
        flow.at = At::kData;
        // What a chunk carries pays for what is said of it, as in Go's net/http: only extensions for their own sake run into the limit.
        const uint64_t paid = 16 + 2 * flow.bytes;
        flow.extensionBytes = flow.extensionBytes > paid ? flow.extensionBytes - static_cast<size_t>(paid) : 0;
        if (!feedText(g, tls, s, line, length)) return Chunks::kClosed;
        continue;
      }
      case At::kData: {
        size_t length = static_cast<size_t>(end - *p);
        if (length > flow.bytes) length = static_cast<size_t>(flow.bytes);
        flow.bytes -= length;
        if (flow.bytes == 0) flow.at = At::kDataCr;
        char* data = *p;
        *p += length;
        if (!feed(g, tls, s, data, length)) return Chunks::kClosed;
        continue;
      }
      case At::kDataCr:
        if (c != '\r') return Chunks::kBad;
        flow.at = At::kDataLf;
        break;
      case At::kDataLf:
        if (c != '\n') return Chunks::kBad;
        flow.at = At::kSize;
        break;
      case At::kTrailer:
        if (c == '\r') flow.at = At::kLastLf;
        else if (!isToken(c)) return Chunks::kBad;
        else flow.at = At::kTrailerName;
        break;
      case At::kTrailerName:
        if (c == ':') flow.at = At::kTrailerValue;
        else if (!isToken(c) || ++flow.trailerBytes > kTrailerBytes) return Chunks::kBad;
        break;
      case At::kTrailerValue:
        if (c == '\r') flow.at = At::kTrailerLf;
        else if (isControl(c) || ++flow.trailerBytes > kTrailerBytes) return Chunks::kBad;
        break;
      case At::kTrailerLf:
        if (c != '\n') return Chunks::kBad;
        flow.at = At::kTrailer;
        break;
      default:  // kLastLf
        if (c != '\n') return Chunks::kBad;
        ++*p;
        return Chunks::kDone;
    }
    ++*p;
  }
  return Chunks::kMore;
}

void forget(Gate& g, us_socket_t* s) {
  if (g.flows.empty()) return;
  const auto found = g.flows.find(s);
  if (found == g.flows.end()) return;
  if (found->second.exchange != nullptr) napi_delete_reference(g.env, found->second.exchange);
  g.flows.erase(found);
}

void closeNow(Gate& g, int tls, us_socket_t* s) {
  if (g.us.isClosed(tls, s)) return;
  g.us.shutdown(tls, s);
  g.us.close(tls, s, 0, nullptr);
}

// JavaScript answers, if it still can, and the connection is gone afterwards.
void tellBadBody(Gate& g, int tls, us_socket_t* s, Flow& flow) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(g.env, &scope) == napi_ok) {
    napi_value callback, receiver, exchange, ignored;
    napi_get_reference_value(g.env, g.onBadBody, &callback);
    napi_get_reference_value(g.env, flow.exchange, &exchange);
    napi_create_object(g.env, &receiver);
    if (napi_make_callback(g.env, g.context, receiver, callback, 1, &exchange, &ignored) != napi_ok) {
      bool pending = false;
      napi_value error;
      napi_is_exception_pending(g.env, &pending);
      if (pending && napi_get_and_clear_last_exception(g.env, &error) == napi_ok) napi_fatal_exception(g.env, error);
    }
    napi_close_handle_scope(g.env, scope);
  }
  closeNow(g, tls, s);
}

template <int kTls, bool kRelayed = false>
us_socket_t* onData(us_socket_t* s, char* data, int length) {
  Gate& g = *gate;
  char* p = data;
  char* const end = data + length;
  if (g.us.isShutDown(kTls, s)) return s;
  Flow flow;  // a copy: what is handed on may close the connection, and with it forget its entry
  bool stored = false;
  if (!g.flows.empty()) {
    const auto found = g.flows.find(s);
    if (found != g.flows.end()) {
      flow = found->second;
      stored = true;
    }
  }
  while (p < end) {
    if (flow.at < At::kBody) {
      char* start = p;  // of what is handed on
      const bool begins = !kRelayed && flow.at == At::kBefore;  // else uWebSockets has the rest of it elsewhere
      Insertion insertion;
      const bool announced = kRelayed && (flow.at == At::kAnnounced || (flow.at == At::kBefore && *p == '\r'));  // that is no text
      const Head head = passHead(flow, kTls, kRelayed, &p, &start, end, &insertion);
      if (head == Head::kBad || (!announced && isWide(start, p) && hasWideFraming(flow, start, p))) {
        g.us.write(kTls, s, kRefusal, sizeof kRefusal - 1, 0);
        closeNow(g, kTls, s);
        return s;
      }
      if (head == Head::kInsert) {
        const auto length = static_cast<int>(insertion.text.size());
        if (start < insertion.after && !feed(g, kTls, s, start, static_cast<size_t>(insertion.after - start))) return s;
        if (length > 0 && !feedText(g, kTls, s, insertion.text.data(), length)) return s;
        continue;
      }
      char* to = p;
      if (head == Head::kIncomplete) {
        if (flow.at == At::kAbsolute) to = insertion.after;
        if (flow.at != At::kAnnounced) keepLine(flow, start, to);
      }
      g.current = head == Head::kComplete ? s : nullptr;
      g.head = begins ? start : nullptr;
      g.headEnd = to;
      g.next = Flow();
      const bool open = start == to || feed(g, kTls, s, start, static_cast<size_t>(to - start));
      g.current = nullptr;
      if (!open) {
        if (g.next.exchange != nullptr) napi_delete_reference(g.env, g.next.exchange);
        if (g.us.isClosed(kTls, s) == 0) forget(g, s);
        return s;
      }
      if (head == Head::kComplete) flow = g.next;
    } else if (flow.at == At::kBody) {
      size_t part = static_cast<size_t>(end - p);
      if (part > flow.bytes) part = static_cast<size_t>(flow.bytes);
      flow.bytes -= part;
      if (flow.bytes == 0) flow = Flow();
      if (!feed(g, kTls, s, p, part)) return s;
      p += part;
    } else {
      // Entered first: whoever closes the connection meanwhile lets go of the exchange.
      g.flows[s] = flow;
      stored = true;
      switch (passChunks(g, kTls, s, flow, &p, end)) {
        case Chunks::kClosed:
          return s;
        case Chunks::kBad:
          tellBadBody(g, kTls, s, flow);
          return s;
        case Chunks::kDone: {
          const bool first = flow.first;
          forget(g, s);
          stored = false;
          flow = Flow();
          if (!feedText(g, kTls, s, first ? "0\r\n\r\n" : "\r\n0\r\n\r\n", first ? 5 : 7)) return s;
          break;
        }
        case Chunks::kMore:
          break;
      }
    }
  }
  if (flow.at != At::kBefore) g.flows[s] = flow;
  else if (stored) forget(g, s);
  return s;
}

template <int kTls>
us_socket_t* onClose(us_socket_t* s, int code, void* reason) {
  forget(*gate, s);
  return gate->onClose[kTls](s, code, reason);
}

// The library that has uSockets' functions: that of the uWebSockets.js that is loaded.
int findUSockets(dl_phdr_info* info, size_t, void* out) {
  const size_t length = strlen(info->dlpi_name);
  if (length < 5 || strcmp(info->dlpi_name + length - 5, ".node") != 0) return 0;
  void* library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return 0;
  USockets us;
  const auto find = [library](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
  };
  find(us.onData, "us_socket_context_on_data");
  find(us.onClose, "us_socket_context_on_close");
  find(us.isClosed, "us_socket_is_closed");
  find(us.isShutDown, "us_socket_is_shut_down");
  find(us.write, "us_socket_write");
  find(us.shutdown, "us_socket_shutdown");
  find(us.close, "us_socket_close");
  dlclose(library);
  if (!us.complete()) return 0;
  *static_cast<USockets*>(out) = us;
  return 1;
}

// Exchanges a handler of the context; what was there before, or null where it did not show.
template <typename Handler>
Handler exchange(int tls, us_socket_context_t* context, void (*set)(int, us_socket_context_t*, Handler), Handler ours) {
  constexpr size_t kWords = 48;  // the context, with TLS's part; behind it lies uWebSockets' own data, of kilobytes
  void* before[kWords];
  memcpy(before, context, sizeof before);
  set(tls, context, ours);
  void* after[kWords];
  memcpy(after, context, sizeof after);
  for (size_t i = 0; i < kWords; i++) {
    if (after[i] == reinterpret_cast<void*>(ours) && before[i] != after[i]) return reinterpret_cast<Handler>(before[i]);
  }
  return nullptr;
}

// openGate(onBadBody, names) -> marks, for readHead: once in each thread. `names` are the fields' that get numbers, from 1.
napi_value openGate(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  uint32_t names = 0;
  if (!checkFunction(env, args.at[0], "onBadBody")) return nullptr;
  if (napi_get_array_length(env, args.at[1], &names) != napi_ok) return throwArgument(env, "names", "an array");
  if (gate != nullptr) return throwCoded(env, "EALREADY", "openGate", "this thread has one", "");
  auto* g = new Gate;
  if (dl_iterate_phdr(findUSockets, &g->us) == 0) {
    delete g;
    return throwCoded(env, "ENOTSUP", "openGate", "uWebSockets.js exports no uSockets", "");
  }
  napi_value name;
  g->env = env;
  napi_create_string_utf8(env, "tidegate.gate", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, nullptr, name, &g->context);
  napi_create_reference(env, args.at[0], 1, &g->onBadBody);
  for (uint32_t i = 0; i < names; i++) {
    napi_value one;
    char text[64];
    napi_get_element(env, args.at[1], i, &one);
    if (!readString(env, one, "names", text, sizeof text)) return nullptr;
    g->names.add(text);
  }
  napi_value buffer, marks;
  void* data = nullptr;
  napi_create_arraybuffer(env, kMarks * sizeof *g->marks, &data, &buffer);
  napi_create_typedarray(env, napi_int32_array, kMarks, buffer, 0, &marks);
  napi_create_reference(env, buffer, 1, &g->marksBuffer);
  g->marks = static_cast<int32_t*>(data);
  gate = g;
  return marks;
}

// guardApp(descriptor, tls, relayed): from now on the app's connections pass the gate. `relayed`: they are relay.cc's, which puts a PROXY header before
// each head.
napi_value guardApp(napi_env env, napi_callback_info info) {
  Arguments<3> args(env, info);
  double descriptor;
  bool tls, relayed;
  if (gate == nullptr) return throwCoded(env, "EINVAL", "guardApp", "no gate is open", "");
  if (napi_get_value_double(env, args.at[0], &descriptor) != napi_ok) return throwArgument(env, "descriptor", "a number");
  if (napi_get_value_bool(env, args.at[1], &tls) != napi_ok) return throwArgument(env, "tls", "a boolean");
  if (napi_get_value_bool(env, args.at[2], &relayed) != napi_ok) return throwArgument(env, "relayed", "a boolean");
  // A descriptor is the app's address in the bits of a double; an app begins with its context's.
  us_socket_context_t** app;
  memcpy(&app, &descriptor, sizeof app);
  const auto data = exchange(tls, *app, gate->us.onData, tls ? onData<1> : relayed ? onData<0, true> : onData<0>);
  const auto close = exchange(tls, *app, gate->us.onClose, tls ? onClose<1> : onClose<0>);
  if (data == nullptr || close == nullptr) return throwCoded(env, "ENOTSUP", "guardApp", "the app has no handlers", "");
  gate->onData[tls] = data;
  gate->onClose[tls] = close;
  return nullptr;
}

// expectBody(bytes, exchange): what follows the head that is being handled; -1 for chunks. False where no gate has seen that head.
napi_value expectBody(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  double bytes = 0;
  napi_value out;
  const bool known = gate != nullptr && gate->current != nullptr && napi_get_value_double(env, args.at[0], &bytes) == napi_ok;
  if (known) {
    Flow& next = gate->next;
    if (bytes < 0) {
      next.at = At::kSize;
      napi_create_reference(env, args.at[1], 1, &next.exchange);
    } else if (bytes > 0) {
      next.at = At::kBody;
      next.bytes = static_cast<uint64_t>(bytes);
    }
  }
  napi_get_boolean(env, known, &out);
  return out;
}

// readHead() -> the head that is being handled, a character a byte, and its marks. Null where no gate has seen it, or not in one piece.
napi_value readHead(napi_env env, napi_callback_info) {
  napi_value out;
  const Gate* g = gate;
  if (g == nullptr || g->current == nullptr || g->head == nullptr || !markHead(g->names, g->head, g->headEnd, g->marks, kMarks)) {
    napi_get_null(env, &out);
    return out;
  }
  napi_create_string_latin1(env, g->head, static_cast<size_t>(g->headEnd - g->head), &out);
  return out;
}

}  // namespace

void registerGate(napi_env env, napi_value exports) {
  setFunction(env, exports, "openGate", openGate);
  setFunction(env, exports, "guardApp", guardApp);
  setFunction(env, exports, "expectBody", expectBody);
  setFunction(env, exports, "readHead", readHead);
}

}  // namespace tidegate
