// HMAC-SHA256 in one call: a key is hashed once, a check is a message in and a yes or no out. The hash is OpenSSL's,
// the one inside Node.
#include "addon.h"

// A Node packaged without these headers goes without: policy/signature.ts has the long way round.
#if __has_include(<openssl/sha.h>)

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/crypto.h>
#include <openssl/sha.h>

namespace tidegate {
namespace {

constexpr size_t kBlockBytes = 64;
constexpr size_t kMessageBytes = 4096;
constexpr size_t kHexDigits = SHA256_DIGEST_LENGTH * 2;

// The states after the padded key (RFC 2104, 4).
struct HmacKey {
  SHA256_CTX inner;
  SHA256_CTX outer;
};

// hmacKey(key: Uint8Array of 64 bytes, padded) → external
napi_value hmacKey(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  void* data;
  size_t length;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, args.at[0], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array || length != kBlockBytes) {
    return throwArgument(env, "key", "a Uint8Array of 64 bytes");
  }
  unsigned char pad[kBlockBytes];
  auto* key = new HmacKey;
  for (size_t i = 0; i < kBlockBytes; i++) pad[i] = static_cast<unsigned char*>(data)[i] ^ 0x36;
  SHA256_Init(&key->inner);
  SHA256_Update(&key->inner, pad, kBlockBytes);
  for (size_t i = 0; i < kBlockBytes; i++) pad[i] ^= 0x36 ^ 0x5c;
  SHA256_Init(&key->outer);
  SHA256_Update(&key->outer, pad, kBlockBytes);
  OPENSSL_cleanse(pad, sizeof pad);
  napi_value external;
  const auto destroy = [](napi_env, void* pointer, void*) {
    OPENSSL_cleanse(pointer, sizeof(HmacKey));
    delete static_cast<HmacKey*>(pointer);
  };
  if (napi_create_external(env, key, destroy, nullptr, &external) != napi_ok) {
    destroy(env, key, nullptr);
    return nullptr;
  }
  return external;
}

// hmacMatches(key, message, hex) → boolean
napi_value hmacMatches(napi_env env, napi_callback_info info) {
  Arguments<3> args(env, info);
  void* key;
  if (napi_get_value_external(env, args.at[0], &key) != napi_ok) return throwArgument(env, "key", "an HMAC key");
  char message[kMessageBytes];
  size_t length;
  // What does not fit is cut without an error: then at most 3 bytes before the zero are free.
  if (napi_get_value_string_utf8(env, args.at[1], message, sizeof message, &length) != napi_ok ||
      length >= sizeof message - 4) {
    return throwArgument(env, "message", "a string of less than 4092 bytes");
  }
  char hex[kHexDigits + 2];
  size_t digits;
  if (napi_get_value_string_latin1(env, args.at[2], hex, sizeof hex, &digits) != napi_ok) {
    return throwArgument(env, "hex", "a string");
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256_CTX state = static_cast<HmacKey*>(key)->inner;
  SHA256_Update(&state, message, length);
  SHA256_Final(digest, &state);
  state = static_cast<HmacKey*>(key)->outer;
  SHA256_Update(&state, digest, sizeof digest);
  SHA256_Final(digest, &state);

  char expected[kHexDigits];
  for (size_t i = 0; i < sizeof digest; i++) {
    expected[2 * i] = "0123456789abcdef"[digest[i] >> 4];
    expected[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
  }
  napi_value matches;
  napi_get_boolean(env, digits == kHexDigits && CRYPTO_memcmp(expected, hex, kHexDigits) == 0, &matches);
  return matches;
}

}  // namespace

void registerHmac(napi_env env, napi_value exports) {
  setFunction(env, exports, "hmacKey", hmacKey);
  setFunction(env, exports, "hmacMatches", hmacMatches);
}

}  // namespace tidegate

#else

namespace tidegate {
void registerHmac(napi_env, napi_value) {}
}  // namespace tidegate

#endif
