/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * provider.h: what the files of the provider know of each other.
 *
 * Responsible for: the order of the locks.  A command holds control_lock (control.c), which
 * nothing but commands and the module's end take; devices_lock (device.c) is inside of it, and
 * inside of devices_lock there is no rtnl_lock and no registration.
 *
 * Must never: be included by anything else.
 */
#ifndef PROVIDER_H
#define PROVIDER_H

#include <linux/auxiliary_bus.h>
#include <linux/platform_device.h>
#include <linux/workqueue.h>
#include <rdma/ib_verbs.h>

#define MAX_PORTS 16

enum protocol {
	PROTOCOL_IB,
	PROTOCOL_ROCE,
	PROTOCOL_IW,
	PROTOCOL_OPA,
	PROTOCOL_USNIC,
	PROTOCOL_NONE,
};

struct provider_port {
	enum protocol protocol;
	enum ib_port_state state;
	/* Made by the provider and the provider's to remove: iWARP cannot be without one. */
	struct net_device *own_netdev;
	/* The one that is attached; the reference is ib_core's. */
	struct net_device *netdev;
};

/* What a device is to be; a device keeps its own, to become another by `type`. */
struct device_spec {
	char name[IB_DEVICE_NAME_MAX];
	u32 ports;
	/* Tells devices, their GUIDs and LIDs apart; 0 is for the next one. */
	u32 number;
	/* By port number, from 1. */
	struct provider_port port[MAX_PORTS + 1];
};

struct provider_device {
	struct ib_device ibdev;
	struct list_head list;
	struct device_spec spec;
	/* Either of them: the one that goes with the device, or the one that it goes with. */
	struct platform_device *parent;
	struct auxiliary_device *function;
};

/* control.c: words to numbers, for every command */
int parse_spec(struct device_spec *spec, const char *name, const char *protocol,
	       const char *ports);

/* parent.c */
bool is_plain_name(const char *name, size_t size);
struct platform_device *parent_add(const char *driver);
void parent_remove(struct platform_device *parent);
void parent_drivers_remove(void);

/* device.c */
extern struct mutex devices_lock;
struct provider_device *provider_add(const struct device_spec *spec, struct device *parent,
				   struct auxiliary_device *function);
void provider_remove(struct provider_device *dev);
struct provider_device *ibdev_named(const char *name);
struct provider_device *ibdev_of_function(struct auxiliary_device *function);
struct provider_device *ibdev_any(void);
void ibdev_set_state(struct provider_device *dev, u32 port, enum ib_port_state state);
int ibdev_set_netdev(struct provider_device *dev, u32 port, struct net_device *netdev);
int devices_init(void);
void devices_exit(void);

/* queues.c */
extern const struct ib_device_ops queue_ops;
int queues_init(void);
void queues_exit(void);

/* function.c */
int function_add(const char *match, u32 id, const char *driver);
int function_remove(const char *match, u32 id);
/* Without a spec the driver binds functions and registers nothing for them. */
int function_driver_on(const struct device_spec *spec);
int function_driver_off(void);
void functions_exit(void);

#endif
