// What gate_binding.cc asks of syscalls.cc.
#pragma once

#include <node_api.h>

namespace tidegate {

void registerSyscalls(napi_env env, napi_value exports);

}  // namespace tidegate
