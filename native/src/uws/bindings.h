// The functions for JavaScript of the files here, which gate_binding.cc registers with its own.
#pragma once

#include <node_api.h>

namespace tidegate {

void registerSyscalls(napi_env env, napi_value exports);
void registerSyscallsProof(napi_env env, napi_value exports);
void registerProofSockets(napi_env env, napi_value exports);

}  // namespace tidegate
