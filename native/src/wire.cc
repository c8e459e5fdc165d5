// The sockets of the lean upstream client, over libuv. Bytes in and out, and no more: which of them are whose is
// JavaScript's business.
//
// What costs most about a socket of Node's is the way into JavaScript and back, once for each read and each write. Here
// a turn of the loop has one of each: what was read from all connections is told of when the poll phase is over, and
// what is to be written has been collected by then.
//
//   poll ─► read, read, read … ─► check ─► onTurn(records) ─► send(text, count) ─► write, write …
//             into the arena       or prepare, for what other phases have left
//
//   memory, which JavaScript sees as well:
//     │ arena: what was read │ wanted │ records: id, at, length, mark │ … │ sends: id, length │ … │
//
// A mark says that a read begins with what its connection was told to remember: a head like the last one need not
// become a string.
#include "calls.h"

#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace tidegate {
namespace {

constexpr size_t kReadBytes = 131072;  // at most, of one connection at a time: then its handler is asked whether it wants more. 64 KiB and a head fit
constexpr size_t kRecords = 1024;     // told of in one call
constexpr size_t kSends = 1024;
constexpr size_t kRecordsAt = 1;  // in words after the arena
constexpr size_t kSendsAt = kRecordsAt + 4 * kRecords;
constexpr size_t kWords = kSendsAt + 2 * kSends;
constexpr unsigned kKeepAliveSeconds = 60;

// A record's second word, where it is not the place of bytes in the arena. The third one is then an error of libuv's,
// or 0.
enum : int32_t { kConnected = -1, kDrained = -2, kEnded = -3, kConnectFailed = -4, kReadFailed = -5, kWriteFailed = -6 };

struct Record {
  int32_t id, at, length, mark;
};

struct Wire;

struct Connection {
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;  // libuv's name for a Unix socket
  };
  uv_connect_t connecting;
  Wire* wire;
  int32_t id;
  size_t queued = 0;  // writes under way
  std::string remembered;
  int32_t mark = 0;  // of that
  bool closing = false;
};

// What a socket did not take at once.
struct Write {
  uv_write_t request;
  Connection* connection;
  std::string before, after;
  napi_ref body = nullptr;
};

struct Wire {
  napi_env env = nullptr;
  napi_async_context context = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  napi_ref onTurn = nullptr;
  uv_prepare_t prepare;
  uv_check_t check;
  uv_idle_t idle;  // runs while something is left to be told: the loop must not sleep on it
  std::vector<char> memory;
  char* arena = nullptr;
  size_t arenaBytes = 0, used = 0;
  int32_t* words = nullptr;
  std::vector<Record> records;
  std::vector<Connection*> connections;  // by id, which is used again once the handle is closed
  std::vector<int32_t> freeIds;
  std::vector<char> scratch = std::vector<char>(kReadBytes);
  int openHandles = 3;
  int references = 2;  // the memory, as JavaScript sees it, and the handles
};

void drop(Wire* w) {
  if (--w->references == 0) delete w;
}

void onClosed(Wire* w) {
  if (--w->openHandles > 0) return;
  napi_delete_reference(w->env, w->onTurn);
  napi_async_destroy(w->env, w->context);
  napi_remove_async_cleanup_hook(w->cleanup);  // from here on the environment may go
  drop(w);
}

void closeConnection(Connection* c) {
  if (c->closing) return;
  c->closing = true;
  uv_close(&c->handle, [](uv_handle_t* handle) {
    auto* c = static_cast<Connection*>(handle->data);
    Wire* w = c->wire;
    // What was to be told of it is nobody's: the next one has its number.
    auto& records = w->records;
    records.erase(std::remove_if(records.begin(), records.end(), [c](const Record& record) { return record.id == c->id; }), records.end());
    w->connections[static_cast<size_t>(c->id)] = nullptr;
    w->freeIds.push_back(c->id);
    delete c;
    onClosed(w);
  });
}

void onEnvironmentEnds(napi_async_cleanup_hook_handle, void* data) {
  auto* w = static_cast<Wire*>(data);
  const auto closed = [](uv_handle_t* handle) { onClosed(static_cast<Wire*>(handle->data)); };
  uv_close(reinterpret_cast<uv_handle_t*>(&w->prepare), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&w->check), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&w->idle), closed);
  for (Connection* c : w->connections) {
    if (c != nullptr) closeConnection(c);
  }
}

// Into JavaScript: what has happened, and it writes what it wants to.
void turn(Wire* w) {
  napi_handle_scope scope;
  size_t left = w->records.size();  // what is added meanwhile waits for the next turn
  const bool open = napi_open_handle_scope(w->env, &scope) == napi_ok;
  {
    Calls call(w->env, w->context);
    do {
      const size_t some = left < kRecords ? left : kRecords;
      const auto begin = w->records.begin(), end = begin + static_cast<std::ptrdiff_t>(some);
      std::copy(begin, end, reinterpret_cast<Record*>(w->words + kRecordsAt));
      w->records.erase(begin, end);
      left -= some;
      if (!open) continue;
      const napi_value count = integer(w->env, static_cast<int64_t>(some));
      call(w->onTurn, &count, 1, -1);
    } while (left > 0);
  }
  if (open) napi_close_handle_scope(w->env, scope);
  w->used = 0;
}

bool waiting(const Wire* w) { return w->words[0] != 0 || !w->records.empty(); }

void onCheck(uv_check_t* check) {
  auto* w = static_cast<Wire*>(check->data);
  if (waiting(w)) turn(w);
}

void onPrepare(uv_prepare_t* prepare) {
  auto* w = static_cast<Wire*>(prepare->data);
  if (waiting(w)) turn(w);
  if (waiting(w)) uv_idle_start(&w->idle, [](uv_idle_t*) {});
  else uv_idle_stop(&w->idle);
}

void tell(Connection* c, int32_t at, int32_t length, int32_t mark = 0) {
  if (!c->closing) c->wire->records.push_back({c->id, at, length, mark});
}

void onRoom(uv_handle_t* handle, size_t, uv_buf_t* out) {
  Wire* w = static_cast<Connection*>(handle->data)->wire;
  *out = uv_buf_init(w->arena + w->used, kReadBytes);
}

void onRead(uv_stream_t* stream, ssize_t bytes, const uv_buf_t* into) {
  auto* c = static_cast<Connection*>(stream->data);
  Wire* w = c->wire;
  if (bytes < 0) return tell(c, bytes == UV_EOF ? kEnded : kReadFailed, static_cast<int32_t>(bytes));
  if (bytes == 0) return;
  const std::string& known = c->remembered;
  const bool same = !known.empty() && known.size() <= static_cast<size_t>(bytes) && memcmp(into->base, known.data(), known.size()) == 0;
  tell(c, static_cast<int32_t>(w->used), static_cast<int32_t>(bytes), same ? c->mark : 0);
  w->used += static_cast<size_t>(bytes);
  // A full read: there is more where that came from, and libuv reads on.
  if (static_cast<size_t>(bytes) == into->len || w->arenaBytes - w->used < kReadBytes) turn(w);
}

void onConnected(uv_connect_t* request, int status) {
  auto* c = static_cast<Connection*>(request->data);
  if (c->closing) return;
  if (status == 0) status = uv_read_start(&c->stream, onRoom, onRead);
  tell(c, status == 0 ? kConnected : kConnectFailed, status);
}

void onWritten(uv_write_t* request, int status) {
  auto* write = static_cast<Write*>(request->data);
  Connection* c = write->connection;
  if (write->body != nullptr) napi_delete_reference(c->wire->env, write->body);
  delete write;
  c->queued--;
  if (status < 0) tell(c, kWriteFailed, status);
  else if (c->queued == 0) tell(c, kDrained, 0);
}

// Writes up to three pieces, of which `body`, the second, is the data of `owner` and the others last as long as this
// call. What does not fit is queued: of `body` a reference. Returns whether all of it has left.
bool writeOut(Connection* c, uv_buf_t* pieces, unsigned count, napi_value owner) {
  uv_stream_t* stream = &c->stream;
  int sent = c->queued > 0 ? 0 : uv_try_write(stream, pieces, count);
  if (sent == UV_EAGAIN) sent = 0;
  if (sent < 0) {
    tell(c, kWriteFailed, sent);
    return true;
  }
  size_t left = 0;
  for (unsigned i = 0; i < count; i++) {
    const size_t gone = static_cast<size_t>(sent) < pieces[i].len ? static_cast<size_t>(sent) : pieces[i].len;
    pieces[i].base += gone;
    pieces[i].len -= gone;
    sent -= static_cast<int>(gone);
    left += pieces[i].len;
  }
  if (left == 0) return true;
  auto* write = new Write;
  write->request.data = write;
  write->connection = c;
  write->before.assign(pieces[0].base, pieces[0].len);
  pieces[0].base = write->before.data();
  if (count == 3) {
    if (pieces[1].len > 0) napi_create_reference(c->wire->env, owner, 1, &write->body);
    write->after.assign(pieces[2].base, pieces[2].len);
    pieces[2].base = write->after.data();
  }
  c->queued++;
  if (const int error = uv_write(&write->request, stream, pieces, count, onWritten)) onWritten(&write->request, error);
  return false;
}

Wire* wireOf(napi_env env, napi_callback_info info, napi_value* at, size_t most) {
  void* data = nullptr;
  napi_get_cb_info(env, info, &most, at, nullptr, &data);
  return static_cast<Wire*>(data);
}

// Null: there is none, or it is closed already.
Connection* find(Wire* w, int32_t id) {
  Connection* c = id >= 0 && static_cast<size_t>(id) < w->connections.size() ? w->connections[static_cast<size_t>(id)] : nullptr;
  return c == nullptr || c->closing ? nullptr : c;
}

Connection* find(napi_env env, Wire* w, napi_value value) {
  int32_t id = -1;
  napi_get_value_int32(env, value, &id);
  return find(w, id);
}

// Appends the text to the scratch buffer, a byte a character, from `from` on. False: it is none.
bool readText(napi_env env, Wire* w, napi_value value, size_t from, size_t* bytes) {
  auto& scratch = w->scratch;
  if (napi_get_value_string_latin1(env, value, scratch.data() + from, scratch.size() - from, bytes) != napi_ok) return false;
  if (from + *bytes + 8 < scratch.size()) return true;
  if (napi_get_value_string_latin1(env, value, nullptr, 0, bytes) != napi_ok) return false;
  scratch.resize(from + *bytes + kReadBytes);
  return napi_get_value_string_latin1(env, value, scratch.data() + from, *bytes + 1, bytes) == napi_ok;
}

// With a number, and known by it. Its handle is to be initialised before anything else happens.
Connection* addConnection(Wire* w) {
  auto* c = new Connection;
  c->wire = w;
  w->openHandles++;
  if (w->freeIds.empty()) {
    w->freeIds.push_back(static_cast<int32_t>(w->connections.size()));
    w->connections.push_back(nullptr);
  }
  c->id = w->freeIds.back();
  w->freeIds.pop_back();
  w->connections[static_cast<size_t>(c->id)] = c;
  return c;
}

// connect(address, port) -> id
napi_value connectTo(napi_env env, napi_callback_info info) {
  napi_value at[2];
  Wire* w = wireOf(env, info, at, 2);
  char address[128];
  int64_t port;
  sockaddr_storage peer = {};
  if (!readString(env, at[0], "address", address, sizeof address)) return nullptr;
  if (!readInteger(env, at[1], "port", 0, 65535, &port)) return nullptr;
  if (uv_ip4_addr(address, static_cast<int>(port), reinterpret_cast<sockaddr_in*>(&peer)) != 0 &&
      uv_ip6_addr(address, static_cast<int>(port), reinterpret_cast<sockaddr_in6*>(&peer)) != 0) {
    return throwArgument(env, "address", "an IPv4 or IPv6 address");
  }
  Connection* c = addConnection(w);
  uv_tcp_init(w->check.loop, &c->tcp);
  c->handle.data = c->connecting.data = c;
  uv_tcp_nodelay(&c->tcp, 1);
  uv_tcp_keepalive(&c->tcp, 1, kKeepAliveSeconds);
  const int error = uv_tcp_connect(&c->connecting, &c->tcp, reinterpret_cast<sockaddr*>(&peer), onConnected);
  if (error != 0) tell(c, kConnectFailed, error);
  return integer(env, c->id);
}

// connectUnix(path) -> id. The kernel decides at once and waits for nothing: if the listener's backlog is full, the
// failure is EAGAIN.
napi_value connectUnix(napi_env env, napi_callback_info info) {
  napi_value at[1];
  Wire* w = wireOf(env, info, at, 1);
  char path[sizeof sockaddr_un::sun_path];  // libuv cuts a longer one off in silence
  if (!readString(env, at[0], "path", path, sizeof path)) return nullptr;
  if (path[0] != '/') return throwArgument(env, "path", "an absolute path");
  Connection* c = addConnection(w);
  uv_pipe_init(w->check.loop, &c->pipe, 0);
  c->handle.data = c->connecting.data = c;
  uv_pipe_connect(&c->connecting, &c->pipe, path, onConnected);
  return integer(env, c->id);
}

// send(text, count): the text is what `count` connections get, one after the other, as it says in `sends`.
napi_value sendAll(napi_env env, napi_callback_info info) {
  napi_value at[2];
  Wire* w = wireOf(env, info, at, 2);
  int64_t count;
  size_t bytes;
  if (!readInteger(env, at[1], "count", 0, kSends, &count)) return nullptr;
  if (!readText(env, w, at[0], 0, &bytes)) return throwArgument(env, "text", "a string");
  size_t from = 0;
  const int32_t* sends = w->words + kSendsAt;
  for (int64_t i = 0; i < count; i++) {
    const auto length = static_cast<size_t>(sends[2 * i + 1]);
    if (length > bytes - from) return throwArgument(env, "text", "as long as all that is sent");
    Connection* c = find(w, sends[2 * i]);
    uv_buf_t piece = uv_buf_init(w->scratch.data() + from, static_cast<unsigned>(length));
    if (c != nullptr) writeOut(c, &piece, 1, nullptr);
    from += length;
  }
  return nullptr;
}

// write(id, before, body, after) -> whether all of it has left
napi_value writeNow(napi_env env, napi_callback_info info) {
  napi_value at[4];
  Wire* w = wireOf(env, info, at, 4);
  size_t before, after, length;
  void* body;
  napi_typedarray_type type;
  bool isArray = false, all = true;
  napi_is_typedarray(env, at[2], &isArray);
  if (!isArray || napi_get_typedarray_info(env, at[2], &type, &length, &body, nullptr, nullptr) != napi_ok || type != napi_uint8_array) {
    return throwArgument(env, "body", "a Buffer");
  }
  if (!readText(env, w, at[1], 0, &before)) return throwArgument(env, "before", "a string");
  if (!readText(env, w, at[3], before, &after)) return throwArgument(env, "after", "a string");
  if (Connection* c = find(env, w, at[0])) {
    uv_buf_t pieces[3] = {
        uv_buf_init(w->scratch.data(), static_cast<unsigned>(before)),
        uv_buf_init(static_cast<char*>(body), static_cast<unsigned>(length)),
        uv_buf_init(w->scratch.data() + before, static_cast<unsigned>(after)),
    };
    all = writeOut(c, pieces, 3, at[2]);
  }
  napi_value out;
  napi_get_boolean(env, all, &out);
  return out;
}

// remember(id, text) -> the mark of reads that begin with it. It takes the place of what was remembered before, whose
// marks may still come.
napi_value remember(napi_env env, napi_callback_info info) {
  napi_value at[2];
  Wire* w = wireOf(env, info, at, 2);
  size_t bytes;
  if (!readText(env, w, at[1], 0, &bytes)) return throwArgument(env, "text", "a string");
  Connection* c = find(env, w, at[0]);
  if (c == nullptr) return integer(env, 0);
  c->remembered.assign(w->scratch.data(), bytes);
  c->mark = c->mark == INT32_MAX ? 1 : c->mark + 1;
  return integer(env, c->mark);
}

// pause(id)
napi_value pause(napi_env env, napi_callback_info info) {
  napi_value at[1];
  Wire* w = wireOf(env, info, at, 1);
  if (Connection* c = find(env, w, at[0])) uv_read_stop(&c->stream);
  return nullptr;
}

// resume(id). One that was not paused reads on; of one that is not connected yet, nothing is asked.
napi_value resume(napi_env env, napi_callback_info info) {
  napi_value at[1];
  Wire* w = wireOf(env, info, at, 1);
  if (Connection* c = find(env, w, at[0])) uv_read_start(&c->stream, onRoom, onRead);
  return nullptr;
}

// close(id): nothing more is told of it.
napi_value closeById(napi_env env, napi_callback_info info) {
  napi_value at[1];
  Wire* w = wireOf(env, info, at, 1);
  if (Connection* c = find(env, w, at[0])) closeConnection(c);
  return nullptr;
}

// openWire(arenaBytes, onTurn) -> { memory, connect, connectUnix, send, write, remember, pause, resume, close }.
// Lasts as long as the environment.
napi_value openWire(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  int64_t arenaBytes;
  if (!readInteger(env, args.at[0], "arenaBytes", kReadBytes, 1 << 26, &arenaBytes)) return nullptr;
  if (arenaBytes % 8 != 0) return throwArgument(env, "arenaBytes", "a multiple of 8");
  if (!checkFunction(env, args.at[1], "onTurn")) return nullptr;
  uv_loop_t* loop;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return throwCoded(env, "ENOTSUP", "openWire", "no event loop here", "");

  auto* w = new Wire;
  w->env = env;
  w->arenaBytes = static_cast<size_t>(arenaBytes);
  w->memory.resize(w->arenaBytes + kWords * sizeof(int32_t));
  w->arena = w->memory.data();
  w->words = reinterpret_cast<int32_t*>(w->arena + w->arenaBytes);
  napi_value memory, name, out;
  const auto collected = [](napi_env, void*, void* wire) { drop(static_cast<Wire*>(wire)); };
  if (napi_create_external_arraybuffer(env, w->arena, w->memory.size(), collected, w, &memory) != napi_ok) {
    delete w;
    return throwCoded(env, "ENOTSUP", "openWire", "no memory of our own here", "");
  }
  uv_prepare_init(loop, &w->prepare);
  uv_check_init(loop, &w->check);
  uv_idle_init(loop, &w->idle);
  w->prepare.data = w->check.data = w->idle.data = w;
  uv_prepare_start(&w->prepare, onPrepare);
  uv_check_start(&w->check, onCheck);
  uv_unref(reinterpret_cast<uv_handle_t*>(&w->prepare));
  uv_unref(reinterpret_cast<uv_handle_t*>(&w->check));
  napi_create_string_utf8(env, "tidegate.wire", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, nullptr, name, &w->context);
  napi_create_reference(env, args.at[1], 1, &w->onTurn);
  napi_add_async_cleanup_hook(env, onEnvironmentEnds, w, &w->cleanup);

  napi_create_object(env, &out);
  setProperty(env, out, "memory", memory);
  const struct {
    const char* name;
    napi_callback function;
  } functions[] = {{"connect", connectTo},   {"connectUnix", connectUnix}, {"send", sendAll},  {"write", writeNow},
                   {"remember", remember}, {"pause", pause},             {"resume", resume}, {"close", closeById}};
  for (const auto& each : functions) {
    napi_value function;
    napi_create_function(env, each.name, NAPI_AUTO_LENGTH, each.function, w, &function);
    setProperty(env, out, each.name, function);
  }
  return out;
}

}  // namespace

void registerWire(napi_env env, napi_value exports) { setFunction(env, exports, "openWire", openWire); }

}  // namespace tidegate
