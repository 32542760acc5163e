/* A driver's function with a branch, an inlined one and one that is not called. */
void tell(int value);

static inline __attribute__((always_inline)) int twice(int value)
{
	if (value > 100)
		return 0;
	return 2 * value;
}

int reached(int value)
{
	if (value < 0) {
		tell(value);
		return -1;
	}
	tell(1);
	return twice(value);
}

int missed(int value)
{
	tell(value);
	return 1;
}
