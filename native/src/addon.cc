// The addon's entry, and what addon.h declares.
#include "addon.h"

#include <uv.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace tidegate {

namespace {
constexpr const char* kBadArgument = "ERR_INVALID_ARG_VALUE";
}

napi_value throwArgument(napi_env env, const char* name, const char* expected) {
  char message[256];
  snprintf(message, sizeof message, "%s must be %s", name, expected);
  napi_throw_type_error(env, kBadArgument, message);
  return nullptr;
}

bool readInteger(napi_env env, napi_value value, const char* name, int64_t least, int64_t most, int64_t* out) {
  double number;
  if (napi_get_value_double(env, value, &number) == napi_ok && number >= static_cast<double>(least) &&
      number <= static_cast<double>(most) && std::trunc(number) == number) {
    *out = static_cast<int64_t>(number);
    return true;
  }
  char expected[96];
  snprintf(expected, sizeof expected, "an integer from %lld to %lld", static_cast<long long>(least),
           static_cast<long long>(most));
  throwArgument(env, name, expected);
  return false;
}

bool readString(napi_env env, napi_value value, const char* name, char* out, size_t capacity) {
  size_t length;
  // The length is asked for first: a copy that does not fit is cut without an error.
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
    throwArgument(env, name, "a string");
    return false;
  }
  if (length < capacity && napi_get_value_string_utf8(env, value, out, capacity, &length) == napi_ok &&
      strlen(out) == length) {
    return true;
  }
  char expected[96];
  snprintf(expected, sizeof expected, "a string of less than %zu bytes without a zero byte", capacity);
  throwArgument(env, name, expected);
  return false;
}

bool checkFunction(napi_env env, napi_value value, const char* name) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_function) return true;
  throwArgument(env, name, "a function");
  return false;
}

napi_value throwCoded(napi_env env, const char* code, const char* syscall, const char* reason, const char* subject) {
  char text[kPathBytes + 256];
  snprintf(text, sizeof text, "%s %s: %s%s%s", syscall, code, reason, *subject ? ", " : "", subject);
  napi_value message, codeValue, name, error;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &codeValue);
  napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &name);
  napi_create_error(env, codeValue, message, &error);
  setProperty(env, error, "syscall", name);
  napi_throw(env, error);
  return nullptr;
}

napi_value throwSystem(napi_env env, int error, const char* syscall, const char* subject) {
  char code[32], reason[128];
  uv_err_name_r(-error, code, sizeof code);
  uv_strerror_r(-error, reason, sizeof reason);
  return throwCoded(env, code, syscall, reason, subject);
}

napi_value integer(napi_env env, int64_t value) {
  napi_value out;
  napi_create_int64(env, value, &out);
  return out;
}

void setProperty(napi_env env, napi_value object, const char* name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

void setFunction(napi_env env, napi_value exports, const char* name, napi_callback function) {
  napi_value value;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, nullptr, &value) == napi_ok) {
    setProperty(env, exports, name, value);
  }
}

namespace {

// closeFd(fd)
napi_value closeFd(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  int64_t fd;
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &fd)) return nullptr;
  // EINTR: the descriptor is closed all the same.
  if (close(static_cast<int>(fd)) != 0 && errno != EINTR) return throwSystem(env, errno, "close", "");
  return nullptr;
}

}  // namespace

}  // namespace tidegate

NAPI_MODULE_INIT() {
  tidegate::registerSegment(env, exports);
  tidegate::registerListener(env, exports);
  tidegate::registerAcceptor(env, exports);
  tidegate::registerHmac(env, exports);
  tidegate::registerHandover(env, exports);
  tidegate::registerServer(env, exports);
  tidegate::registerWire(env, exports);
  tidegate::setFunction(env, exports, "closeFd", tidegate::closeFd);
  return exports;
}
