// SPDX-License-Identifier: GPL-2.0
/*
 * Does one thing wrong when it is loaded: what the parameter names. A kernel
 * whose detector for it is alive reports it. See kdrv/sim/alive.py.
 */
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

static char *how = "";
module_param(how, charp, 0);
MODULE_PARM_DESC(how, "kasan, ubsan, lockdep, atomic, leak, dma, objects or nothing");

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(two);
static DEFINE_SPINLOCK(spin);
static volatile int forty = 40;

/* Not static, or the compiler would do without the bad access. */
noinline int kdrv_selftest_read(const char *data, int index);
noinline int kdrv_selftest_read(const char *data, int index)
{
	return *(const volatile char *)(data + index);
}

static void read_behind_the_end(void)
{
	char *data = kzalloc(forty, GFP_KERNEL);

	if (data)
		pr_info("read %d\n", kdrv_selftest_read(data, forty));
	kfree(data);
}

static void do_no_harm(void)
{
	pr_info("read %d\n", kdrv_selftest_read("x", 0));
}

static void shift_too_far(void)
{
	pr_info("shifted %d\n", 1 << forty);
}

static void lock_in_both_orders(void)
{
	mutex_lock(&one);
	mutex_lock(&two);
	mutex_unlock(&two);
	mutex_unlock(&one);
	mutex_lock(&two);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&two);
}

static void sleep_with_a_spinlock(void)
{
	spin_lock(&spin);
	might_sleep();
	spin_unlock(&spin);
}

static void lose_memory(void)
{
	for (int i = 0; i < 8; i++) {
		char *data = kzalloc(200, GFP_KERNEL);

		if (data)
			kdrv_selftest_read(data, i);
	}
}

static void unmap_what_was_not_mapped(void)
{
	struct platform_device *device = platform_device_register_simple("kdrv_selftest", -1, NULL, 0);

	if (IS_ERR(device))
		return;
	if (!dma_coerce_mask_and_coherent(&device->dev, DMA_BIT_MASK(32)))
		dma_unmap_single(&device->dev, 0x1000, 64, DMA_TO_DEVICE);
	platform_device_unregister(device);
}

static void nothing(struct timer_list *timer)
{
}

static void free_a_running_timer(void)
{
	struct timer_list *timer = kzalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return;
	timer_setup(timer, nothing, 0);
	mod_timer(timer, jiffies + 1000 * HZ);
	kfree(timer);
}

static int __init selftest_init(void)
{
	static const struct {
		const char *name;
		void (*act)(void);
	} acts[] = {
		{ "kasan", read_behind_the_end }, { "ubsan", shift_too_far },
		{ "lockdep", lock_in_both_orders }, { "atomic", sleep_with_a_spinlock },
		{ "leak", lose_memory }, { "dma", unmap_what_was_not_mapped },
		{ "objects", free_a_running_timer }, { "nothing", do_no_harm },
	};

	for (int i = 0; i < ARRAY_SIZE(acts); i++)
		if (!strcmp(how, acts[i].name))
			acts[i].act();
	return 0;
}
module_init(selftest_init);

static void __exit selftest_exit(void)
{
}
module_exit(selftest_exit);

MODULE_DESCRIPTION("Does one thing wrong, for detectors to report");
MODULE_LICENSE("GPL");
