/* The kernel's types and libbpf's helpers, as every program includes them. */
#ifndef ACH_KERNEL_H
#define ACH_KERNEL_H

/* Packet formats and __sk_buff never change: nothing to relocate. */
#define BPF_NO_PRESERVE_ACCESS_INDEX
/* A map of ours has a name that the kernel gives to a type. */
#define config vmlinux_config
#include "vmlinux.h"
#undef config

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "ach_trace.h"

#endif
