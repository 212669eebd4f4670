import sys,json,numpy as np
sys.path.insert(0,'.')
from pxdbg_runtime.validation.clusters import find_clusters
from pxdbg_runtime.validation.seams import find_seams, measure_borders
from pxdbg_runtime.validation.repeats import RepeatFinder
ref=json.load(open('pxd_marginals.json'))['samples']['geant4']
OCC=np.array(ref['sensor_mean_occupancy']); CH=np.array(ref['sensor_mean_charge'])
cnt=np.array(ref['charge_counts'],float); CUM=np.cumsum(cnt)/cnt.sum()
oc=np.array(ref['occupancy_counts']+[ref['occupancy_overflow']],float); OCUM=np.cumsum(oc)/oc.sum()
im=np.concatenate([np.load(f) for f in sys.argv[1:]]); n=len(im)
hit=im>0
o=hit.mean((1,2)); os=o.reshape(-1,40).mean(0); oerr=o.reshape(-1,40).std(0)/np.sqrt(n/40)/os
print('images',n,'occ dev mean',np.abs(os/OCC-1).mean(),'L1',(os/OCC-1)[:16].mean(),'L2',(os/OCC-1)[16:].mean(),'stat err per sensor',oerr.mean(),'total',os.mean()/OCC.mean()-1)
cs=np.array([im[s::40][hit[s::40]].mean(dtype=float) for s in range(40)])
print('charge dev mean',np.abs(cs/CH-1).mean(),'L1',(cs/CH-1)[:16].mean(),'L2',(cs/CH-1)[16:].mean())
c=np.bincount(im.ravel(),minlength=256)[7:]; cum=np.cumsum(c)/c.sum(); print('W1',np.abs(cum-CUM).sum(),'KS',np.abs(cum-CUM).max())
h=np.histogram(o,np.append(np.linspace(0,.02,201),1))[0]; hc=np.cumsum(h)/h.sum(); print('KS occ',np.abs(hc-OCUM)[:-1].max())
r=o.reshape(-1,40); print('spread L1',(r.std(0)/r.mean(0))[:16].mean(),'L2',(r.std(0)/r.mean(0))[16:].mean())
sub=im[:400]
row,col=np.nonzero(np.pad(sub,((0,0),(0,1),(0,0))).reshape(-1,768)); sz,cc=find_clusters(row,col,sub[sub>0])
print('clusters size',sz.mean(),np.median(sz),'charge',cc.mean(),np.median(cc), 'hist',np.bincount(sz)[:12]/len(sz))
for s in find_seams(hit.sum((0,2)),hit.sum((0,1))): print(s.axis,s.period,s.phase,round(s.deviation_percent,2),'+-',round(s.deviation_error_percent,2),s.verdict)
for ax,p in (('u',hit.sum((0,2))),('v',hit.sum((0,1)))):
    print([ (round(b.low,3),round(b.high,3)) for b in measure_borders(p,ax)])
f=RepeatFinder()
for e in range(n//40):
    s,u,v=np.nonzero(im[e*40:e*40+40]); f.add(s,u,v,im[e*40:e*40+40][s,u,v])
print(f.find_repeats())
