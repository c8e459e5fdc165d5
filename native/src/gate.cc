// The gate: every byte of a connection passes it before uWebSockets.js' parser sees it, decrypted where there is TLS. It reads no
// request: framing.h finds where heads and bodies end and refuses what that parser takes or waits on for ever; the rest is handed on.
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
//   on_data ──► framing.h ──► uWebSockets' on_data ──► handler ──► expectBody(length | chunked), in time for what is behind the head
//
// Stands between uSockets and uWebSockets: a socket context's on_data and on_close are exchanged for ours by uSockets' own functions,
// which the binary exports. Those that were there before are found by looking which word of the context changes.
#include "gate.h"

#include "addon.h"
#include "framing.h"

#include <dlfcn.h>
#include <link.h>

#include <cstring>
#include <unordered_map>
#include <utility>

namespace tidegate {
namespace {

struct us_socket_context_t;
using OnOpen = us_socket_t* (*)(us_socket_t*, int, char*, int);
using OnData = us_socket_t* (*)(us_socket_t*, char*, int);
using OnClose = us_socket_t* (*)(us_socket_t*, int, void*);

struct USockets {
  void (*onOpen)(int, us_socket_context_t*, OnOpen) = nullptr;
  void (*onData)(int, us_socket_context_t*, OnData) = nullptr;
  void (*onClose)(int, us_socket_context_t*, OnClose) = nullptr;
  int (*isClosed)(int, us_socket_t*) = nullptr;
  int (*isShutDown)(int, us_socket_t*) = nullptr;
  int (*write)(int, us_socket_t*, const char*, int, int) = nullptr;
  void (*shutdown)(int, us_socket_t*) = nullptr;
  us_socket_t* (*close)(int, us_socket_t*, int, void*) = nullptr;
  bool complete() const { return onOpen && onData && onClose && isClosed && isShutDown && write && shutdown && close; }
};

// uWebSockets marks the end of what it was given with two bytes behind it and looks up to 32 further.
static_assert(kPadding >= 32);

struct Connection {
  Flow flow;
  napi_ref exchange = nullptr;  // of the chunked body that flows
  bool within = false;          // its bytes are being handed on: it is erased afterwards
  bool closed = false;
};

struct Gate {
  napi_env env = nullptr;
  napi_ref onBadBody = nullptr;
  napi_async_context context = nullptr;
  USockets us;
  OnOpen onOpen = nullptr;  // uWebSockets' own, in cleartext
  OnData onData[2] = {};    // … by TLS or not
  OnClose onClose[2] = {};
  std::unordered_map<us_socket_t*, Connection> connections;  // that have sent something
  us_socket_t* adopted = nullptr;
  Connection* current = nullptr;                             // whose head is being handed on
  Flow* next = nullptr;                                      // what follows that head
};

// uSockets' handlers get no pointer of ours. An environment has one gate, a thread one environment.
thread_local Gate* gate = nullptr;

constexpr char kRefusal[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

// What is behind the part handed on lies in the same buffer, where uWebSockets sets its marks.
bool feed(Gate& g, int tls, us_socket_t* s, char* data, size_t length) {
  char behind[2];
  memcpy(behind, data + length, sizeof behind);
  g.onData[tls](s, data, static_cast<int>(length));
  memcpy(data + length, behind, sizeof behind);
  return !g.us.isClosed(tls, s) && !g.us.isShutDown(tls, s);
}

void letGo(Gate& g, Connection& connection) {
  if (connection.exchange != nullptr) napi_delete_reference(g.env, connection.exchange);
  connection.exchange = nullptr;
}

void closeNow(Gate& g, int tls, us_socket_t* s) {
  if (g.us.isClosed(tls, s)) return;
  g.us.shutdown(tls, s);
  g.us.close(tls, s, 0, nullptr);
}

// JavaScript answers, if it still can, and the connection is gone afterwards.
void tellBadBody(Gate& g, int tls, us_socket_t* s, Connection& connection) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(g.env, &scope) == napi_ok) {
    napi_value callback, receiver, exchange, ignored;
    napi_get_reference_value(g.env, g.onBadBody, &callback);
    napi_get_reference_value(g.env, connection.exchange, &exchange);
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

// What framing.h hands on goes to uWebSockets' parser.
struct Parser {
  Gate& g;
  int tls;
  us_socket_t* s;
  Connection& connection;

  bool feed(char* data, size_t length) { return tidegate::feed(g, tls, s, data, length); }
  bool feedText(const char* text, size_t length) {
    char padded[kInsertionBytes + 2 * kPadding];
    memcpy(padded + kPadding, text, length);
    return feed(padded + kPadding, length);
  }
  bool feedHead(char* data, size_t length, Flow& next) {
    g.current = &connection;
    g.next = &next;
    const bool open = feed(data, length);
    g.current = nullptr;
    return open;
  }
  void endBody() { letGo(g, connection); }
};

template <int kTls, bool kRelayed = false>
us_socket_t* onData(us_socket_t* s, char* data, int length) {
  Gate& g = *gate;
  if (g.us.isShutDown(kTls, s)) return s;
  Connection& connection = g.connections[s];
  connection.within = true;
  Parser parser{g, kTls, s, connection};
  const Passed passed = passBytes(parser, connection.flow, kTls, kRelayed, data, data + length);
  if (passed == Passed::kBadHead) {
    g.us.write(kTls, s, kRefusal, sizeof kRefusal - 1, 0);
    closeNow(g, kTls, s);
  } else if (passed == Passed::kBadBody) {
    tellBadBody(g, kTls, s, connection);
  }
  connection.within = false;
  if (connection.closed) {
    letGo(g, connection);
    g.connections.erase(s);
  }
  return s;
}

us_socket_t* onOpen(us_socket_t* s, int isClient, char* address, int addressLength) {
  gate->adopted = s;
  return gate->onOpen(s, isClient, address, addressLength);
}

template <int kTls>
us_socket_t* onClose(us_socket_t* s, int code, void* reason) {
  Gate& g = *gate;
  const auto found = g.connections.find(s);
  if (found != g.connections.end()) {
    letGo(g, found->second);
    if (found->second.within) found->second.closed = true;
    else g.connections.erase(found);
  }
  return g.onClose[kTls](s, code, reason);
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
  find(us.onOpen, "us_socket_context_on_open");
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

// openGate(onBadBody): once in each thread.
napi_value openGate(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  if (!checkFunction(env, args.at[0], "onBadBody")) return nullptr;
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
  gate = g;
  return nullptr;
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
  if (!tls && !relayed) {
    const auto open = exchange(0, *app, gate->us.onOpen, onOpen);
    if (open == nullptr) return throwCoded(env, "ENOTSUP", "guardApp", "the app has no handlers", "");
    gate->onOpen = open;
  }
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
    Flow& next = *gate->next;
    if (bytes < 0) {
      next.at = At::kSize;
      letGo(*gate, *gate->current);
      napi_create_reference(env, args.at[1], 1, &gate->current->exchange);
    } else if (bytes > 0) {
      next.at = At::kBody;
      next.bytes = static_cast<uint64_t>(bytes);
    }
  }
  napi_get_boolean(env, known, &out);
  return out;
}

}  // namespace

bool canDeliver() { return gate != nullptr; }

us_socket_t* takeAdopted() { return gate == nullptr ? nullptr : std::exchange(gate->adopted, nullptr); }

void deliver(us_socket_t* connection, char* data, size_t bytes) {
  if (!gate->us.isClosed(0, connection)) onData<0>(connection, data, static_cast<int>(bytes));
}

void registerGate(napi_env env, napi_value exports) {
  setFunction(env, exports, "openGate", openGate);
  setFunction(env, exports, "guardApp", guardApp);
  setFunction(env, exports, "expectBody", expectBody);
}

}  // namespace tidegate
