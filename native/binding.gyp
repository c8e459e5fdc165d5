{
  'targets': [{
    'target_name': 'tidegate',
    'sources': [
      'src/addon.cc', 'src/segment.cc', 'src/mappings.cc', 'src/listener.cc', 'src/acceptor.cc', 'src/arrivals.cc', 'src/calls.cc',
      'src/hmac.cc', 'src/handover.cc', 'src/wire.cc',
      'src/uws/gate.cc', 'src/uws/gate_held.cc', 'src/uws/gate_watch.cc', 'src/uws/gate_binding.cc', 'src/uws/usockets.cc', 
      'src/uws/syscalls.cc', 'src/uws/imports.cc', 'src/uws/syscalls_proof.cc', 'src/uws/relay.cc', 'src/uws/proof_sockets.cc',
    ],
    # Node-API 8 is in every Node since 12.22: one binary loads in 20 to 26, whichever of them built it.
    'defines': ['NAPI_VERSION=8'],
    'cflags_cc': ['-std=c++17', '-Wall', '-Wextra', '-Wno-cast-function-type', '-fvisibility=hidden'],
  }],
}
