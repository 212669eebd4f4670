"""fast path (features of fit sample) or full model: python gen.py STAGE n first full"""
import sys,time; a=sys.argv[1:]; sys.argv=['x']
exec(open('build/fit/fit1.py').read().split("t0=time.time()")[0])
import json
SEED,fitted=torch.load(a[0]); n=int(a[1]); seed=int(a[2])
m=build()
lat=torch.randn(n*40,128,generator=torch.Generator().manual_seed(seed))
charges=np.zeros((n*40,250,768),np.uint8)
from export.charge import *
def charge(t):
    t=np.where(t>np.float32(-.26),t,np.float32(-1)); c=np.clip(256.0**(t*.5+.5)-1,0,255).astype(np.uint8); c[c<7]=0; return c
t0=time.time()
for i in range(n*40):
    l=lat[i:i+1]; s=torch.tensor([i%40])
    x,cond=inputs(m,l,s,4)
    x=m.blocks[9][0](x,cond); x=m.blocks[11][0](x,cond)
    y=torch.tanh(m.output_layer(x))[0,0,3:253].numpy(); charges[i]=charge(y)
print('s/image',(time.time()-t0)/(n*40))
np.save(a[3],charges)
