// The gate's functions for JavaScript (native/index.ts, src/downstream/uws/gate.ts): opened once in each thread, put
// before each app, and asked from within a request's handler for its head and told what follows that.
#include "../addon.h"
#include "bindings.h"
#include "gate_state.h"

#include <cstring>
#include <string>

namespace tidegate {
namespace {

using namespace gating;

// The gate itself stays: connections may still be closed.
void onEnvironmentEnds(napi_async_cleanup_hook_handle, void* data) {
  auto* g = static_cast<Gate*>(data);
  const auto closed = [](uv_handle_t* handle) {
    auto* g = static_cast<Gate*>(handle->data);
    if (--g->openHandles == 0) napi_remove_async_cleanup_hook(g->cleanup);
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&g->turn), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&g->poll), closed);
}

bool isFloat64Array(napi_env env, napi_value value) {
  bool isArray = false;
  napi_typedarray_type type = napi_int8_array;
  napi_is_typedarray(env, value, &isArray);
  if (isArray) napi_get_typedarray_info(env, value, &type, nullptr, nullptr, nullptr, nullptr);
  return type == napi_float64_array;
}

bool readNames(napi_env env, napi_value list, uint32_t count, FieldNames* out) {
  for (uint32_t i = 0; i < count; i++) {
    napi_value one;
    char text[64];
    if (napi_get_element(env, list, i, &one) != napi_ok || !readString(env, one, "names", text, sizeof text)) return false;
    out->add(text);
  }
  return true;
}

bool readRefusals(napi_env env, napi_value list, std::string* out) {
  for (uint32_t i = 0; i < kRefusals; i++) {
    napi_value one;
    char text[512];
    if (napi_get_element(env, list, i, &one) != napi_ok) return throwArgument(env, "refusals", "an array") != nullptr;
    if (!readString(env, one, "refusals", text, sizeof text)) return false;
    out[i] = text;
    if (out[i].find("\r\n\r\n") == std::string::npos) return throwArgument(env, "refusals", "responses") != nullptr;
  }
  return true;
}

// openGate(onBadBody, names, tallies, headTimeoutMs, idleTimeoutMs, mostHeadBytes, refusals) -> { states, marks }: once
// in each thread. `names` are the fields' that get numbers, from 1; `refusals` the gate's own responses, without a
// Date.
napi_value openGate(napi_env env, napi_callback_info info) {
  Arguments<7> args(env, info);
  uint32_t names = 0;
  int64_t headMs, idleMs, headBytes;
  if (!checkFunction(env, args.at[0], "onBadBody")) return nullptr;
  if (napi_get_array_length(env, args.at[1], &names) != napi_ok) return throwArgument(env, "names", "an array");
  if (!isFloat64Array(env, args.at[2])) return throwArgument(env, "tallies", "a Float64Array");
  if (!readInteger(env, args.at[3], "headTimeoutMs", 1, INT32_MAX, &headMs)) return nullptr;
  if (!readInteger(env, args.at[4], "idleTimeoutMs", 1, INT32_MAX, &idleMs)) return nullptr;
  if (!readInteger(env, args.at[5], "mostHeadBytes", 1, INT32_MAX, &headBytes)) return nullptr;
  if (gate != nullptr) return throwCoded(env, "EALREADY", "openGate", "this thread has one", "");
  auto* g = new Gate;
  if (!findUSockets(&g->us)) {
    delete g;
    return throwCoded(env, "ENOTSUP", "openGate", "uWebSockets.js exports no uSockets", "");
  }
  napi_value name, memory, states, marks, out;
  void* data = nullptr;
  void* markData = nullptr;
  if (!readNames(env, args.at[1], names, &g->names) || !readRefusals(env, args.at[6], g->refusals) ||
      napi_create_arraybuffer(env, kStates * sizeof(int32_t), &data, &memory) != napi_ok ||
      napi_create_typedarray(env, napi_int32_array, kStates, memory, 0, &states) != napi_ok ||
      napi_create_arraybuffer(env, kMarks * sizeof(int32_t), &markData, &memory) != napi_ok ||
      napi_create_typedarray(env, napi_int32_array, kMarks, memory, 0, &marks) != napi_ok) {
    delete g;
    return nullptr;
  }
  g->marks = static_cast<int32_t*>(markData);
  g->env = env;
  g->state = static_cast<int32_t*>(data);
  g->mostHeadBytes = static_cast<size_t>(headBytes);
  g->headSeconds = seconds(headMs);
  g->idleSeconds = seconds(idleMs);
  napi_create_string_utf8(env, "tidegate.gate", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, nullptr, name, &g->context);
  napi_create_reference(env, args.at[0], 1, &g->onBadBody);
  napi_create_reference(env, args.at[2], 1, &g->tallies);
  napi_create_reference(env, states, 1, &g->states);
  napi_create_reference(env, marks, 1, &g->marksKept);
  uv_loop_t* loop;
  napi_get_uv_event_loop(env, &loop);
  uv_idle_init(loop, &g->turn);
  uv_prepare_init(loop, &g->poll);
  uv_unref(reinterpret_cast<uv_handle_t*>(&g->turn));
  uv_unref(reinterpret_cast<uv_handle_t*>(&g->poll));
  g->turn.data = g->poll.data = g;
  napi_add_async_cleanup_hook(env, onEnvironmentEnds, g, &g->cleanup);
  gate = g;
  napi_create_object(env, &out);
  setProperty(env, out, "states", states);
  setProperty(env, out, "marks", marks);
  return out;
}

// countRefusals(tallies): from now on in these.
napi_value countRefusals(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  if (!isFloat64Array(env, args.at[0])) return throwArgument(env, "tallies", "a Float64Array");
  if (gate == nullptr) return nullptr;
  napi_delete_reference(env, gate->tallies);
  napi_create_reference(env, args.at[0], 1, &gate->tallies);
  return nullptr;
}

// takeFirstBytes(taken): whether the acceptor passes on what it has received of a connection.
napi_value takeFirstBytes(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  bool taken;
  if (napi_get_value_bool(env, args.at[0], &taken) != napi_ok) return throwArgument(env, "taken", "a boolean");
  if (gate != nullptr) gate->takesFirstBytes = taken;
  return nullptr;
}

// gatedConnections() -> of how many the gate keeps a record.
napi_value gatedConnections(napi_env env, napi_callback_info) {
  return integer(env, gate == nullptr ? 0 : static_cast<int64_t>(gate->connections.size()));
}

// resumeConnection(state): in the next turn of the loop what it has held is handed on, where JavaScript has made that
// word kIdle, or it is closed, where that says kEnds.
napi_value resumeConnection(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  int64_t state;
  if (!readInteger(env, args.at[0], "state", 1, kStates - 1, &state)) return nullptr;
  if (gate == nullptr || static_cast<size_t>(state) >= gate->sockets.size()) return nullptr;
  withNextTurn(*gate, gate->answered, static_cast<int32_t>(state));
  return nullptr;
}

// continueRequest(state): a client that waits to be asked for its body (RFC 9110, 10.1.1) sends it. Before its answer,
// so that nothing waits to be sent, and there is room.
napi_value continueRequest(napi_env env, napi_callback_info info) {
  constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
  Arguments<1> args(env, info);
  int64_t state;
  if (!readInteger(env, args.at[0], "state", 1, kStates - 1, &state)) return nullptr;
  const auto [s, connection] = gate == nullptr ? Numbered() : numbered(*gate, static_cast<int32_t>(state));
  if (s != nullptr) gate->us.write(connection->tls, s, kContinue, sizeof kContinue - 1, 0);
  return nullptr;
}

// endStuck(owned) -> how many connections it has ended.
napi_value endStuckConnections(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  bool isArray = false;
  napi_typedarray_type type = napi_int8_array;
  size_t n = 0;
  void* owned = nullptr;
  napi_is_typedarray(env, args.at[0], &isArray);
  if (isArray) napi_get_typedarray_info(env, args.at[0], &type, &n, &owned, nullptr, nullptr);
  if (type != napi_uint8_array || n < kStates) return throwArgument(env, "owned", "a Uint8Array as long as states");
  return integer(env, gate == nullptr ? 0 : endStuck(*gate, static_cast<uint8_t*>(owned)));
}

// guardApp(descriptor, tls, relayed): from now on the app's connections pass the gate. `relayed`: they are relay.cc's,
// which puts a PROXY header before each head.
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
  if (!standBefore(*gate, *app, tls, relayed)) return throwCoded(env, "ENOTSUP", "guardApp", "the app has no handlers", "");
  return nullptr;
}

// expectBody(bytes, exchange): what follows the head that is being handled; -1 for chunks. False where no gate has seen
// that head.
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

// readHead() -> the head that is being handled, a character a byte, and behind it the authority of a target in
// absolute-form; its marks are made. Null where no gate has seen it.
napi_value readHead(napi_env env, napi_callback_info) {
  napi_value out = nullptr;
  const Gate* g = gate;
  if (g != nullptr && g->current != nullptr) {
    const std::string& absolute = g->current->flow.line.absolute;
    if (absolute.empty()) {
      napi_create_string_latin1(env, g->head, g->headBytes, &out);
    } else {
      const std::string text = std::string(g->head, g->headBytes) + (absolute.c_str() + strlen(kSchemes[g->current->tls]));
      g->marks[kAuthority] = static_cast<int32_t>(g->headBytes);
      napi_create_string_latin1(env, text.data(), text.size(), &out);
    }
  }
  if (out == nullptr) napi_get_null(env, &out);
  return out;
}

}  // namespace

void registerServer(napi_env env, napi_value exports) {
  registerSyscalls(env, exports);
  registerSyscallsProof(env, exports);
  registerProofSockets(env, exports);
  setFunction(env, exports, "openGate", openGate);
  setFunction(env, exports, "countRefusals", countRefusals);
  setFunction(env, exports, "takeFirstBytes", takeFirstBytes);
  setFunction(env, exports, "gatedConnections", gatedConnections);
  setFunction(env, exports, "guardApp", guardApp);
  setFunction(env, exports, "expectBody", expectBody);
  setFunction(env, exports, "resumeConnection", resumeConnection);
  setFunction(env, exports, "continueRequest", continueRequest);
  setFunction(env, exports, "endStuckConnections", endStuckConnections);
  setFunction(env, exports, "readHead", readHead);
}

}  // namespace tidegate
