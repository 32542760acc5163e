/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Read before arch/um/kernel/stacktrace.c, whose dump_trace() asks of every word between the stack
 * pointer and the stack's end whether it is an address of text. For each that is none in the image
 * __kernel_text_address() takes RCU's lock, to look through the modules, and lockdep records it:
 * with KASAN and kmemleak, which save a stack for each object, three quarters of all time went
 * there. Only words that can point into a module are worth it. The answers stay what they were.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <asm/kasan.h>
#include <asm/sections.h>

static inline bool is_text(unsigned long addr)
{
	if (__is_kernel_text(addr) || is_kernel_inittext(addr))
		return true;
	if (addr < MODULES_VADDR || addr >= MODULES_END)
		return false;
	/* Compiled checks leave shadow addresses on the stack. */
	if (IS_ENABLED(CONFIG_KASAN) && addr >= KASAN_SHADOW_START && addr < KASAN_SHADOW_END)
		return false;
	return __kernel_text_address(addr);
}

#define __kernel_text_address(addr) is_text(addr)
